// Which chapter of the documentation explains what is on screen.
import type { Chapter } from "../base/chapters";
import type { Store } from "./store";

/** A part of the panel, by the class of its element. */
export const PARTS = [
  "menu",
  "against",
  "trail",
  "badge-place",
  "target",
  "strip",
  "heads",
  "rank",
  "lower",
  "notices",
] as const;
export type Part = (typeof PARTS)[number];

/** The chapter about a part of the panel; null means the whole panel. `ofTab` is the chapter about the open tab. */
export function chapterFor(part: Part | null, store: Store, ofTab: Chapter): Chapter {
  switch (part) {
    case "menu":
      return "exports";
    case "against":
      return "comparing";
    case "trail":
      return "why";
    case "badge-place":
      return "conventions";
    case "notices":
      return "limits";
    case "strip":
      if (store.segmentsShown.peek() !== null) return "segments";
      return store.asksEach.peek() ? "next-token" : "panel";
    case "target":
      return store.asksEach.peek() ? "next-token" : "panel";
    case "heads":
    case "rank":
      return ofHeads(store) ?? "panel";
    case "lower":
      return ofTab;
    case null:
      return ofHeads(store) ?? ofTab;
  }
}

/** The chapter about what colours the head map; null for the contributions to one target without a comparison. */
function ofHeads(store: Store): Chapter | null {
  if (store.score.peek() !== null) return "scores";
  if (store.effectShown.peek() !== "direct") return "causes";
  if (store.against.peek() !== null) return "comparing";
  return store.asksEach.peek() ? "next-token" : null;
}
