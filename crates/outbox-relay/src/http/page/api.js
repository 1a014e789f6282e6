// Talks to the relay. The admin token stays in this tab's session storage.

const TOKEN = "outbox-admin-token";
const TIMEOUT_MS = 15_000;

export const token = () => sessionStorage.getItem(TOKEN);
export const keepToken = (value) => sessionStorage.setItem(TOKEN, value);
export const forgetToken = () => sessionStorage.removeItem(TOKEN);

/** An error that the relay answered with, or that kept it from answering. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(`api/v1/${path}`, { ...options, signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch (error) {
    throw new ApiError(0, "no_answer", `no answer from the relay (${error.message})`);
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  const { code = "failed", message = `status ${response.status}` } = body?.error ?? {};
  throw new ApiError(response.status, code, message);
}

export function get(path, parameters = {}) {
  const query = new URLSearchParams(parameters).toString();
  return request(query ? `${path}?${query}` : path, {});
}

export function post(path, body, bearer = token()) {
  const headers = { "Content-Type": "application/json", Authorization: `Bearer ${bearer}` };
  return request(path, { method: "POST", headers, body: JSON.stringify(body) });
}

/** A version 4 UUID; `crypto.randomUUID` is missing on pages that came without TLS. */
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
