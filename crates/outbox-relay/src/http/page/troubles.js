// Shows what is in trouble while the rest goes on.

import { get } from "./api.js";
import { duration, element, make, number, time } from "./format.js";

const REFRESH_MS = 5_000;
const KINDS = {
  route: "Route",
  place: "Place on the bus",
  outcome: "Outcome not written",
  pruning: "Row not removed",
  held: "Held by somebody else",
  telling: "Not told",
  failing: "Keeps failing",
};

let shown = "";
let asked = 0;

function row({ kind, name, since, reason, waiting, oldest_due_age_seconds }) {
  const oldest = oldest_due_age_seconds === undefined ? "" : `, the oldest for ${duration(oldest_due_age_seconds)}`;
  const cells = [
    ["What", KINDS[kind] ?? kind],
    ["Which", name],
    ["Since", since === undefined ? "" : time(since)],
    ["Waiting", waiting === undefined ? "" : `${number(waiting)}${oldest}`],
    ["Why", reason],
  ];
  return make("tr", cells.map(([label, text]) => {
    const cell = make("td", text);
    cell.dataset.label = label;
    return cell;
  }));
}

const failingRow = ({ topic, failing, example, last_error }) =>
  row({ kind: "failing", name: topic, waiting: failing, reason: `${last_error} (for example ${example})` });

async function load() {
  let answer;
  try {
    answer = await get("troubles");
  } catch {
    // The state, which is followed, says that the relay does not answer.
    return;
  }
  const rows = [...answer.troubles.map(row), ...(answer.failing ?? []).map(failingRow)];
  element("troubles").hidden = rows.length === 0;
  element("troubles-table").tBodies[0].replaceChildren(...rows);
}

/** Takes in how many troubles there are by kind, and how many events keep failing; loads them when that has changed or is old. */
export function follow(counts, failing) {
  const none = Object.keys(counts).length === 0 && failing === 0;
  const now = JSON.stringify([counts, failing]);
  if (now === shown && (none || Date.now() - asked < REFRESH_MS)) return;
  shown = now;
  asked = Date.now();
  if (none) element("troubles").hidden = true;
  else load();
}
