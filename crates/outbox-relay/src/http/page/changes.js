// The dialogs for the token and for changes: how many, a reason, and progress until all of it is done.

import * as api from "./api.js";
import { element, letters, number } from "./format.js";

const ACTOR = "outbox-admin-name";
const CONTINUE_MAX = 100_000;

const EFFECTS = {
  requeue: "They become pending again, without attempts, and the relay sends them under the same ids.",
  discard: "They are deleted, and nobody will ever receive them. This cannot be undone.",
};

let afterToken = null;
let pending = null;
let done = () => {};

/** Calls `listener` with what happened after each change. */
export function onDone(listener) {
  done = listener;
}

/** Calls `action` now if there is a token, or after one was entered. */
export function withToken(action) {
  if (api.token()) return action();
  afterToken = action;
  element("token-error").textContent = "";
  element("token-form").reset();
  element("token-dialog").showModal();
}

export function showToken() {
  element("token-button").textContent = api.token() ? "Forget admin token" : "Enter admin token";
}

async function useToken(event) {
  event.preventDefault();
  const entered = new FormData(event.target).get("token").trim();
  try {
    // A count changes nothing, and needs the token all the same.
    await api.post("dead-letters/requeue", { everything: true, dry_run: true }, entered);
  } catch (error) {
    if (error.code !== "no_store") {
      element("token-error").textContent = error.message;
      return;
    }
  }
  api.keepToken(entered);
  const action = afterToken;
  afterToken = null;
  element("token-dialog").close();
  showToken();
  action?.();
}

/** Asks whether to do `action` to the letters that `selection` means, described by `text`, and does it. */
export function confirm(action, selection, text) {
  withToken(() => ask(action, selection, text));
}

async function ask(action, selection, text) {
  const name = action === "requeue" ? "Requeue" : "Discard";
  const button = element("confirm-button");
  pending = { action, name, selection, id: api.uuid(), count: 0 };
  element("confirm-form").reset();
  element("confirm-form").elements.actor.value = sessionStorage.getItem(ACTOR) ?? "";
  element("confirm-form").elements.reason.required = action === "discard";
  element("reason-label").textContent = action === "discard" ? "Reason (needed)" : "Reason";
  element("confirm-title").textContent = `${name} dead letters`;
  element("confirm-what").textContent = `${text}: counting`;
  element("confirm-effect").textContent = EFFECTS[action];
  element("confirm-error").textContent = "";
  element("confirm-warning").hidden = true;
  element("confirm-progress").hidden = true;
  button.textContent = name;
  button.classList.toggle("danger", action === "discard");
  button.disabled = true;
  element("confirm").showModal();
  const asked = pending;
  const counted = await countAll(action, selection, (sofar) => {
    if (asked === pending) element("confirm-what").textContent = `${text}: counting, ${number(sofar)} so far`;
  });
  if (counted === undefined || asked !== pending) return;
  pending.count = counted.changed;
  element("confirm-what").textContent = `${text}: ${letters(counted.changed)}.`;
  element("confirm-warning").textContent = counted.warning ?? "";
  element("confirm-warning").hidden = !counted.warning;
  button.textContent = `${name} ${number(counted.changed)}`;
  button.disabled = counted.changed === 0;
}

/** Counts what is meant; where that takes longer than a request may, in several. */
async function countAll(action, selection, onPart) {
  const body = { ...selection, dry_run: true };
  let [changed, warning] = [0, null];
  for (let round = 0; round < CONTINUE_MAX; round++) {
    const part = await attempt(() => api.post(`dead-letters/${action}`, body));
    if (part === undefined) return undefined;
    changed += part.changed;
    warning ??= part.warning;
    if (part.complete) break;
    body.after = part.next;
    onPart(changed);
  }
  return { changed, warning };
}

async function act(event) {
  event.preventDefault();
  const { action, name, selection, id, count } = pending;
  const form = new FormData(event.target);
  const [actor, reason] = [form.get("actor").trim(), form.get("reason").trim()];
  sessionStorage.setItem(ACTOR, actor);
  const progress = element("confirm-progress");
  Object.assign(progress, { max: count, value: 0, hidden: false });
  element("confirm-button").disabled = true;
  element("confirm-error").textContent = "";
  const body = { ...selection, actor, reason, request_id: id };
  let changed = 0;
  for (let round = 0; round < CONTINUE_MAX; round++) {
    const outcome = await attempt(() => api.post(`dead-letters/${action}`, body));
    if (outcome === undefined || pending?.id !== id) break;
    changed += outcome.changed;
    body.after = outcome.next;
    progress.value = changed;
    if (outcome.complete) {
      element("confirm").close();
      done(`${name === "Requeue" ? "Requeued" : "Discarded"} ${letters(changed)}.`);
      return;
    }
  }
  element("confirm-button").disabled = false;
  if (changed > 0) done(`${letters(changed)} changed so far.`);
}

/** Returns what `ask` returns, or shows why there is nothing. A token that is refused is forgotten. */
async function attempt(ask) {
  try {
    return await ask();
  } catch (error) {
    if (error.status === 401) {
      api.forgetToken();
      showToken();
    }
    element("confirm-error").textContent = error.message;
    return undefined;
  }
}

export function start() {
  element("token-form").addEventListener("submit", useToken);
  element("confirm-form").addEventListener("submit", act);
  element("confirm").addEventListener("close", () => (pending = null));
  element("token-button").addEventListener("click", () => {
    if (api.token()) {
      api.forgetToken();
      showToken();
    } else {
      withToken(() => {});
    }
  });
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  showToken();
}
