// Random ids, for example of requests.

/** A random id that is unique across pages, because one kernel serves several of them. */
export function randomId(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
