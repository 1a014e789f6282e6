// Follows the relay's state and shows it.

import * as changes from "./changes.js";
import * as chart from "./chart.js";
import * as detail from "./detail.js";
import { duration, element, number, rate, show } from "./format.js";
import * as letters from "./letters.js";
import * as troubles from "./troubles.js";

/** The relay sends its state every second; silence for so long means that it is gone. */
const SILENCE_MS = 5_000;
const RECONNECT_MS = 5_000;

let previous = null;
let silence = null;

function showRates(now) {
  const seconds = previous ? now.uptime_seconds - previous.uptime_seconds : 0;
  if (seconds < 0) {
    chart.clear();
  } else if (seconds > 0) {
    const per_second = (field) => (now[field] - previous[field]) / seconds;
    const [published, failures] = [per_second("published"), per_second("publish_failures")];
    show("rate", rate(published));
    show("failure-rate", rate(failures), failures > 0);
    chart.add(now.uptime_seconds, published, failures);
  }
  previous = now;
}

/** Replicas are told apart by their addresses, which is all that the database knows of them. */
function showRelays(relays) {
  element("relays-tile").hidden = !relays;
  if (!relays) return show("relays-list", "");
  const each = relays.map(({ address, connections }) => `${address} (${number(connections)})`);
  show("relays", number(relays.length), relays.length === 0);
  show("relays-list", `Connected to it, with how many connections: ${each.join(", ")}.`);
}

function showReason(reason) {
  element("reason").hidden = reason === null;
  show("reason", reason === null ? "" : `Not ready: ${reason}`, true);
}

function showState(now) {
  const { backlog, readiness } = now;
  document.title = `${backlog?.failed ? `(${number(backlog.failed)}) ` : ""}${now.service}`;
  show("service", now.service);
  show("version", now.version);
  show("uptime", `, up for ${duration(now.uptime_seconds)}`);
  const stuck = now.phase === "running" && !readiness.ready;
  show("phase", stuck ? "not ready" : now.phase, now.phase !== "running" || stuck);
  showReason(stuck ? readiness.reason : null);
  show("store", readiness.store.ok ? "up" : "down", !readiness.store.ok);
  show("bus", readiness.bus.ok ? "up" : "down", !readiness.bus.ok);
  troubles.follow(readiness.troubles, backlog?.failing ?? 0);
  show("pending", backlog ? number(backlog.pending) : "–");
  show("oldest", backlog ? duration(backlog.oldest_due_age_seconds) : "–");
  show("failing", backlog ? number(backlog.failing) : "–", backlog?.failing > 0);
  show("failed", backlog ? number(backlog.failed) : "–", backlog?.failed > 0);
  show("published", number(now.published));
  show("failures", number(now.publish_failures));
  show("charged", number(now.attempts_charged));
  show("dead-lettered", number(now.dead_lettered));
  showRelays(now.relays);
  element("read-only").hidden = now.changes_enabled;
  element("token-button").hidden = !now.changes_enabled;
  showRates(now);
  if (backlog) letters.follow(backlog.failed);
}

function lost() {
  show("phase", "no answer from the relay", true);
}

function follow() {
  const events = new EventSource("api/v1/events");
  events.addEventListener("state", (event) => {
    clearTimeout(silence);
    silence = setTimeout(lost, SILENCE_MS);
    showState(JSON.parse(event.data));
  });
  events.addEventListener("error", () => {
    lost();
    // The browser connects again by itself, unless it was refused.
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, RECONNECT_MS);
  });
}

changes.start();
detail.start();
letters.start();
follow();
