// Which chapter of the documentation explains what is on screen.
import type { Chapter } from "../base/chapters";
import type { Store } from "./store";
import { isInside } from "./target";

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

/** The chapter about a part of the panel; null means the whole panel. */
export function chapterFor(part: Part | null, store: Store): Chapter {
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
      return ofTab(store);
    case null:
      return ofHeads(store) ?? ofTab(store);
  }
}

/** The chapter about the colours of the head map; null if they show the contributions of one run. */
function ofHeads(store: Store): Chapter | null {
  if (store.score.peek() !== null) return "scores";
  if (store.effectShown.peek() !== "direct") return "causes";
  if (store.against.peek() !== null) return "comparing";
  return store.asksEach.peek() ? "next-token" : null;
}

function ofTab(store: Store): Chapter {
  switch (store.tab.peek()) {
    case "why":
      return "why";
    case "runs":
      return store.against.peek() === null ? "causes" : "comparing";
    case "token-lens":
      return store.facts.peek()?.lens ? "lenses" : "mathematics";
    case "positions":
      return "mathematics";
    case "segments":
      return "segments";
    case "features":
      return "sae-features";
    case "prompts":
      return "panel";
    case "attention":
      if (isInside(store.target.peek())) return "why";
      return (store.facts.peek()?.positions ?? 0) > LONG ? "long-prompts" : "panel";
  }
}

/** Longer prompts are drawn down-sampled. */
const LONG = 512;
