// Names that are made up, such as those of questions.

/** One that nobody else makes up, in whatever page: a kernel hears several. */
export function randomId(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
