// The list of dead letters: groups, filter, pages, selection.

import * as api from "./api.js";
import * as changes from "./changes.js";
import * as detail from "./detail.js";
import { element, letters as count, make, number, time } from "./format.js";

const PAGE = 50;
const REFRESH_MS = 5_000;
const TIMES = ["created_since", "created_until"];

let filter = {};
/** Where each page up to this one begins. */
let cursors = [null];
let next = null;
let rows = [];
let selected = new Set();
let loadedAt = 0;
let loadedFailed = null;
let loads = 0;

export async function load() {
  const mine = ++loads;
  loadedAt = Date.now();
  const after = cursors.at(-1);
  try {
    const page = await api.get("dead-letters", { ...filter, limit: PAGE, ...(after && { after }) });
    if (mine !== loads) return;
    rows = page.letters;
    next = page.next;
    showRows();
    const { error_class, ...others } = filter;
    const groups = await api.get("dead-letters/groups", others);
    if (mine === loads) showGroups(groups);
  } catch (error) {
    if (mine === loads) note(error.message, true);
  }
}

/** Loads again when the number of dead letters changed, but not under the hands of somebody who works in the list. */
export function follow(failed) {
  const busy = selected.size > 0 || element("letters").contains(document.activeElement) || document.querySelector("dialog[open]");
  if (failed === loadedFailed || busy || Date.now() - loadedAt < REFRESH_MS) return;
  loadedFailed = failed;
  load();
}

function note(text, bad = false) {
  element("letters-note").textContent = text;
  element("letters-note").classList.toggle("bad", bad);
}

function showRows() {
  const ids = new Set(rows.map((letter) => letter.id));
  selected = new Set([...selected].filter((id) => ids.has(id)));
  element("letters").tBodies[0].replaceChildren(...rows.map(row));
  element("letters").hidden = rows.length === 0;
  element("pages").hidden = cursors.length === 1 && next === null;
  element("previous").disabled = cursors.length === 1;
  element("next").disabled = next === null;
  element("page-number").textContent = `Page ${number(cursors.length)}`;
  const filtered = Object.keys(filter).length > 0;
  const none = next !== null ? "None among those looked through; the next page looks further." : filtered ? "None that match." : "None.";
  note(rows.length === 0 ? none : `${number(rows.length)} on this page, newest first`);
  showSelection();
}

function row(letter) {
  const box = make("input", [], { type: "checkbox", checked: selected.has(letter.id) });
  box.setAttribute("aria-label", `Select ${letter.id}`);
  box.addEventListener("change", () => {
    if (box.checked) selected.add(letter.id);
    else selected.delete(letter.id);
    showSelection();
  });
  const button = make("button", "Details", { type: "button" });
  button.setAttribute("aria-label", `Details of ${letter.id}`);
  button.addEventListener("click", () => detail.open(letter.id));
  const attempts = make("td", number(letter.attempt_count), { className: "number" });
  attempts.dataset.label = "Attempts";
  return make("tr", [
    make("td", box),
    make("td", time(letter.created_at), { className: "time", title: letter.created_at }),
    make("td", letter.topic),
    make("td", letter.event_type),
    attempts,
    make("td", make("span", letter.last_error), { className: "error" }),
    make("td", button),
  ]);
}

function showSelection() {
  const some = selected.size > 0;
  const which = some ? `${number(selected.size)} selected` : Object.keys(filter).length > 0 ? "all that match" : "all";
  for (const [id, name] of [["requeue", "Requeue"], ["discard", "Discard"]]) {
    element(id).textContent = `${name} ${which}`;
    element(id).disabled = rows.length === 0;
  }
  element("select-all").checked = rows.length > 0 && selected.size === rows.length;
  element("select-all").indeterminate = some && selected.size < rows.length;
}

function showGroups({ groups, examined, complete }) {
  const buttons = groups.map((group) => {
    const pressed = filter.error_class === group.error_class;
    const button = make("button", [
      make("span", number(group.count), { className: "count" }),
      make("span", group.error_class || "(no error recorded)"),
    ], { type: "button" });
    button.setAttribute("aria-pressed", String(pressed));
    button.addEventListener("click", () => {
      const { error_class, ...others } = filter;
      apply(pressed ? others : { ...others, error_class: group.error_class });
    });
    return button;
  });
  const heading = complete ? "By error" : `By error, among the newest ${number(examined)}`;
  const children = groups.length > 0 ? [make("p", heading, { className: "quiet" }), ...buttons] : [];
  element("groups").replaceChildren(...children);
}

function apply(wanted) {
  filter = wanted;
  cursors = [null];
  selected.clear();
  load();
}

function readFilter(form) {
  const read = [...new FormData(form)].map(([name, text]) => [name, text.trim()]).filter(([, text]) => text !== "");
  const entries = read.map(([name, text]) => [name, TIMES.includes(name) ? new Date(text).toISOString() : text]);
  const kept = filter.error_class === undefined ? {} : { error_class: filter.error_class };
  return { ...Object.fromEntries(entries), ...kept };
}

/** What a change is about: the selected letters, or all that the filter means. */
function change(action) {
  if (selected.size > 0) {
    const ids = [...selected];
    changes.confirm(action, { filter: { ids } }, `${number(ids.length)} selected`);
  } else if (Object.keys(filter).length > 0) {
    const { id, ...others } = filter;
    const ids = id === undefined ? {} : { ids: id.split(",").map((one) => one.trim()) };
    const names = Object.entries(filter).map(([name, text]) => `${name} ${text}`);
    changes.confirm(action, { filter: { ...others, ...ids } }, `All with ${names.join(", ")}`);
  } else {
    changes.confirm(action, { everything: true }, "Every dead letter");
  }
}

export function start() {
  const form = element("filter");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    apply(readFilter(form));
  });
  form.addEventListener("reset", () => apply({}));
  element("previous").addEventListener("click", () => {
    cursors.pop();
    load();
  });
  element("next").addEventListener("click", () => {
    cursors.push(next);
    load();
  });
  element("select-all").addEventListener("change", (event) => {
    selected = new Set(event.target.checked ? rows.map((letter) => letter.id) : []);
    showRows();
  });
  for (const action of ["requeue", "discard"]) element(action).addEventListener("click", () => change(action));
  changes.onDone((text) => {
    element("message").textContent = text;
    selected.clear();
    element("letters-title").focus();
    load();
  });
  load();
}
