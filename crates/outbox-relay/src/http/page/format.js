// How numbers, times and texts are shown. Text from the server only ever becomes text content, never markup.

const whole = new Intl.NumberFormat("en");
const precise = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const element = (id) => document.getElementById(id);
export const number = (value) => whole.format(value);
export const rate = (value) => precise.format(value);
export const letters = (count) => `${number(count)} dead ${count === 1 ? "letter" : "letters"}`;

export function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds > 0 && seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} d`;
}

/** A time in the reader's zone, as 2026-01-31 23:59:59. */
export function time(text) {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? text : at.toLocaleString("sv-SE");
}

export function show(id, text, bad = false) {
  const target = element(id);
  if (target.textContent !== text) target.textContent = text;
  target.classList.toggle("bad", bad);
}

/** Makes an element that holds `content`: text or elements. */
export function make(tag, content = [], properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...[content].flat());
  return made;
}
