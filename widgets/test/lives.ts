// The ends of what a test mounted. `after-each.ts` aborts them, so that no view lives on in a later test.
const lives: AbortController[] = [];

/** The life of what a test mounts. It ends with the test. */
export function life(): AbortController {
  const made = new AbortController();
  lives.push(made);
  return made;
}

export function endAll(): void {
  for (const made of lives.splice(0)) made.abort();
}
