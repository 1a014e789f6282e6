// Polls the relay's state and shows it. Text from the server only ever becomes text content, never markup.
"use strict";

const POLL_MS = 1000;
const TIMEOUT_MS = 5000;
const element = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
let previous = null;

function show(id, text, bad = false) {
  element(id).textContent = text;
  element(id).classList.toggle("bad", bad);
}

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} d`;
}

function rate(now, field) {
  const seconds = previous ? now.uptime_seconds - previous.uptime_seconds : 0;
  return seconds > 0 ? number.format(Math.round((10 * (now[field] - previous[field])) / seconds) / 10) : "–";
}

function showDeadLetters(now) {
  const rows = now.dead_letters.map((letter) => {
    const row = document.createElement("tr");
    const cells = [letter.created_at, letter.topic, letter.event_type, letter.attempt_count, letter.last_error, letter.id];
    row.append(...cells.map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    }));
    return row;
  });
  const table = element("dead-letters");
  table.tBodies[0].replaceChildren(...rows);
  table.hidden = rows.length === 0;
  const note = now.dead_letters_error ?? (rows.length === 0 ? "None." : `The newest ${rows.length}:`);
  show("dead-letters-note", note, now.dead_letters_error !== undefined);
}

function showState(now) {
  const backlog = now.backlog;
  document.title = `${now.service}: ${now.phase}`;
  show("service", now.service);
  show("version", now.version);
  show("phase", now.phase, now.phase === "stopping");
  show("store", now.store_up ? "up" : "down", !now.store_up);
  show("bus", now.bus_up ? "up" : "down", !now.bus_up);
  show("pending", backlog ? number.format(backlog.pending) : "–");
  show("oldest", backlog ? duration(backlog.oldest_due_age_seconds) : "–");
  show("failed", backlog ? number.format(backlog.failed) : "–", backlog?.failed > 0);
  show("published", number.format(now.published));
  show("rate", rate(now, "published"));
  show("failures", number.format(now.publish_failures), now.publish_failures > (previous?.publish_failures ?? 0));
  show("failure-rate", rate(now, "publish_failures"));
  show("uptime", duration(now.uptime_seconds));
  showDeadLetters(now);
  previous = now;
}

async function poll() {
  try {
    const response = await fetch("api/v1/state", { signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    showState(await response.json());
  } catch (error) {
    show("phase", `no answer from the relay (${error.message})`, true);
    previous = null;
  }
  setTimeout(poll, POLL_MS);
}

poll();
