// One dead letter, in a dialog.

import * as api from "./api.js";
import * as changes from "./changes.js";
import { element, make, number, time } from "./format.js";

let shown = null;

export async function open(id) {
  shown = id;
  for (const list of ["detail-fields", "history"]) element(list).replaceChildren();
  for (const part of ["payload", "history-box"]) element(part).hidden = true;
  element("show-payload").hidden = false;
  element("detail-error").textContent = "";
  element("detail").showModal();
  try {
    const detail = await api.get(`dead-letters/${id}`);
    if (shown === id) showFields(detail);
  } catch (error) {
    element("detail-error").textContent = error.message;
  }
}

function showFields(detail) {
  const fields = [
    ["Id", detail.id],
    ["State", detail.status],
    ["Topic", detail.topic],
    ["Type", detail.event_type],
    ["Key", detail.event_key ?? "–"],
    ["Inserted", time(detail.created_at)],
    ["Last attempt before", time(detail.last_attempt_by)],
    ["Attempts", number(detail.attempt_count)],
    ["Last error", detail.last_error],
    ["Payload", `${number(detail.payload_bytes)} bytes`],
    ["Trace context", detail.carrier],
  ];
  element("detail-fields").replaceChildren(...fields.flatMap(([name, text]) => [make("dt", name), make("dd", String(text))]));
  const entries = detail.history.map((entry) =>
    make("li", `${time(entry.at)}: ${entry.action} by ${entry.actor}${entry.reason ? `: ${entry.reason}` : ""}`),
  );
  element("history").replaceChildren(...entries);
  element("history-box").hidden = entries.length === 0;
}

async function showPayload() {
  const id = shown;
  try {
    const { payload, payload_bytes, headers } = await api.post(`dead-letters/${id}/payload`, {});
    if (shown !== id) return;
    const rest = new TextEncoder().encode(payload).length < payload_bytes ? "\n… (cut)" : "";
    element("payload").textContent = `${payload}${rest}\n\nHeaders: ${headers}`;
    element("payload").hidden = false;
    element("show-payload").hidden = true;
    element("payload").focus();
  } catch (error) {
    element("detail-error").textContent = error.message;
  }
}

function change(action) {
  const selection = { filter: { ids: [shown] } };
  const text = `Event ${shown}`;
  element("detail").close();
  changes.confirm(action, selection, text);
}

export function start() {
  element("show-payload").addEventListener("click", () => changes.withToken(showPayload));
  element("detail-requeue").addEventListener("click", () => change("requeue"));
  element("detail-discard").addEventListener("click", () => change("discard"));
}
