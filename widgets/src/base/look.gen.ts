// Generated from py_backend/residscope/base/look.py by `npm run protocol`. Do not edit.
/** A point of the scale, from 0 to 1, and its colour. */
export type Stop = readonly [at: number, hex: string];
/** The visible marks for white space. */
export const MARKS: Record<string, string> = {
  " ": "·",
  "\n": "↵",
  "\r": "␍",
  "\t": "⇥",
  "\u00a0": "⍽"
};
/** The colours of text and lines for positive and negative values. */
export const SIGNS: Record<"light" | "dark", { plus: string; minus: string }> = {
  "light": {
    "plus": "#1a5ba8",
    "minus": "#a8490c"
  },
  "dark": {
    "plus": "#83bdf8",
    "minus": "#f3a768"
  }
};
type Diverging = { middle: string; plus: Stop[]; minus: Stop[] };
export const DIVERGING: Record<"light" | "dark", Diverging> = {
  "light": {
    "middle": "#f5f5f2",
    "plus": [
      [0.04, "#e4edf2"],
      [0.12, "#cde0eb"],
      [0.3, "#9cc4dd"],
      [0.6, "#3a82bd"],
      [1, "#12407f"]
    ],
    "minus": [
      [0.04, "#f7e9dd"],
      [0.12, "#f4d6bd"],
      [0.3, "#ecb185"],
      [0.6, "#d06e2b"],
      [1, "#9c3f05"]
    ]
  },
  "dark": {
    "middle": "#23272c",
    "plus": [
      [0.04, "#27313b"],
      [0.12, "#2a3f55"],
      [0.3, "#325c86"],
      [0.6, "#5096da"],
      [1, "#a5d4ff"]
    ],
    "minus": [
      [0.04, "#352d28"],
      [0.12, "#4c3729"],
      [0.3, "#77492a"],
      [0.6, "#d07e3e"],
      [1, "#ffc38d"]
    ]
  }
};
export const SEQUENTIAL: Record<"light" | "dark", Stop[]> = {
  "light": [
    [0, "#f2f4f2"],
    [0.03, "#e4eeea"],
    [0.12, "#c8e0d8"],
    [0.35, "#8cc1b3"],
    [0.65, "#2f8779"],
    [1, "#0a4844"]
  ],
  "dark": [
    [0, "#22282b"],
    [0.03, "#253031"],
    [0.12, "#284140"],
    [0.35, "#2f6b66"],
    [0.65, "#51ab9d"],
    [1, "#a9f2de"]
  ]
};
