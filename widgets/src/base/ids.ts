// Random ids, for example of requests.

/** A random id. It is unique across pages, because several pages can use one kernel. */
export function randomId(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
