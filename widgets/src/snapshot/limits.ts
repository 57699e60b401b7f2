// The largest snapshot that is drawn. Real models stay far below these limits.
import { PINNED } from "./snapshot";

/** A snapshot within these limits is drawn quickly. */
export const MAX = {
  /** The maximum number of characters: in all texts together, and in one text. */
  characters: 3_000_000,
  letters: 20_000,
  /** The maximum number of values in the snapshot as JSON, and of levels of nesting. */
  values: 400_000,
  depth: 12,
  entries: 1_000,
  contrasts: 4_096,
  notes: 50,
  /** Characters of one note. */
  note: 2_000,
  texts: 1_000,
  layers: 1_024,
  heads: 1_024,
  cells: 20_000,
  positions: 40_000,
  prompts: 40_000,
  pinned: PINNED,
  topK: 50,
  side: 64,
  mapped: 200_000,
  segments: 1_000,
};

/** The largest number of rows that are not heads: embeddings, and each layer's sublayers and biases. */
export const maxOtherRows = (layers: number): number => 8 * layers + 64;

/** Whether the number of characters and values, and the nesting, are within the limits. Runs before any other check. */
export function isSmall(value: unknown): boolean {
  let [letters, values] = [0, 0];
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > MAX.depth) return false;
    const next: unknown[] = [];
    for (const item of level) {
      values += 1;
      if (typeof item === "string") {
        if (item.length > MAX.letters) return false;
        letters += item.length;
      } else if (Array.isArray(item)) {
        if (item.length > MAX.values) return false;
        for (const inner of item) next.push(inner);
      } else if (typeof item === "object" && item !== null) {
        for (const [name, inner] of Object.entries(item)) {
          letters += name.length;
          if (name === "buffers" && Array.isArray(inner) && inner.every((text) => typeof text === "string")) {
            values += inner.length;
            // Buffers hold numbers, so they may be longer than a text.
            letters += inner.reduce<number>((sum, text) => sum + (text as string).length, 0);
          } else next.push(inner);
        }
      }
      if (letters > MAX.characters || values + next.length > MAX.values) return false;
    }
    level = next;
  }
  return true;
}
