// The last minutes as two lines, drawn from what the page has heard while it was open.

import { element, rate } from "./format.js";

const SECONDS = 300;
const WIDTH = 300;
const HEIGHT = 60;
const TOP = 2;

let points = [];

/** Adds the rates at `at`, in seconds since the relay's start, and draws. */
export function add(at, published, failures) {
  points.push({ at, published, failures });
  points = points.filter((point) => at - point.at <= SECONDS);
  const max = Math.max(1, ...points.flatMap((point) => [point.published, point.failures]));
  const x = (point) => (WIDTH - ((at - point.at) * WIDTH) / SECONDS).toFixed(1);
  const y = (value) => (HEIGHT - (value / max) * (HEIGHT - TOP)).toFixed(1);
  const line = (field) => points.map((point, index) => `${index ? "L" : "M"}${x(point)} ${y(point[field])}`).join("");
  const published_line = line("published");
  element("chart-published").setAttribute("d", published_line);
  element("chart-failures").setAttribute("d", points.some((point) => point.failures > 0) ? line("failures") : "");
  element("chart-area").setAttribute("d", `${published_line}L${WIDTH} ${HEIGHT}L${x(points[0])} ${HEIGHT}Z`);
  const highest = rate(Math.max(...points.map((point) => point.published)));
  element("chart-max").textContent = rate(Math.max(...points.flatMap((point) => [point.published, point.failures])));
  element("chart").setAttribute("aria-label", `The last 5 minutes: at most ${highest} published per second`);
}

/** Begins anew, as after a restart of the relay. */
export function clear() {
  points = [];
}
