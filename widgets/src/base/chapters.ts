// The chapters of the documentation that "Help" shows, in the order of its list. Each is a file of py_backend/docs. The
// build reads this list, and puts the texts beside the bundles (help.mjs). Long chapters about Python alone are left
// out, because the package is kept small.

/** The file of each chapter, without ".md", and its name in the list. */
export const CHAPTERS = {
  panel: "The panel: gestures and keys",
  "first-steps": "First steps",
  sidebar: "The sidebar",
  vscode: "VS Code",
  install: "Install and first run",
  "own-model": "Your own model and cache",
  "in-python": "In Python",
  why: "Why",
  causes: "Causes: runs of the model",
  comparing: "Comparing two runs",
  "next-token": "Each next token",
  segments: "Segments",
  "sae-features": "Features of SAEs",
  lenses: "Tuned and other lenses",
  scores: "Head scores",
  "long-prompts": "Long prompts",
  exports: "Exports",
  mathematics: "The mathematics",
  conventions: "Conventions and assumptions",
  limits: "Limits",
} as const;

export type Chapter = keyof typeof CHAPTERS;

/** Returns the chapter of this name. Names also come from other parts of the page, so they are not trusted. */
export function asChapter(name: unknown): Chapter | null {
  return typeof name === "string" && Object.hasOwn(CHAPTERS, name) ? (name as Chapter) : null;
}

/** The Markdown texts of the chapters: the content of help.json. */
export type ChapterTexts = Record<Chapter, string>;
