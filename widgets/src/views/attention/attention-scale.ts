// The three weightings: their names and meanings, and how their values are written and coloured. All pictures on screen
// share the limit of the colour scale, unless each has its own.

import { computed, signal as state } from "@preact/signals-core";
import { signed } from "../../base/format";
import { keysOf } from "../../base/keys-of";
import type { Theme } from "../../draw/colours";
import { css, divergingRgb, type Rgb, sequentialRgb } from "../../draw/colours";
import type { Store, Weighting } from "../../state/store";

/** The units of the scales. */
export const UNITS: Record<Weighting, string> = { pattern: "attention", value: "× ‖v W_O‖", contribution: "logits" };
export const NAMES: Record<Weighting, string> = {
  pattern: "Attention",
  value: "Value-weighted",
  contribution: "Contribution",
};
export const WEIGHTINGS = keysOf(NAMES);

export function meaningOf(weighting: Weighting, store: Store): string {
  switch (weighting) {
    case "pattern":
      return "Attention: the pattern, 0 to 1.";
    case "value":
      return "Value-weighted: attention × ‖v W_O‖, the length of what is written from each source.";
    case "contribution":
      return (
        `Contribution: what each source adds to the ${store.quantity.value} at the destination. Blue adds, ` +
        "orange takes away."
      );
  }
}

/** The text of a length: "3.2", "12.5", "0.20". */
export function length(value: number): string {
  if (!Number.isFinite(value)) return "not known";
  if (value > 0 && value < 1e-4) return "<0.0001";
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toPrecision(2);
}

/** The text of a value. `largest` is the largest absolute value of the contributions that are shown together. */
export function written(weighting: Weighting, value: number, largest = 0): string {
  if (!Number.isFinite(value)) return "not known";
  return weighting === "contribution"
    ? signed(value, largest)
    : weighting === "value"
      ? length(value)
      : value.toFixed(2);
}

/** The number of decimals that distinguishes values on a scale up to `limit`. */
export function decimals(limit: number): number {
  return limit > 0 && Number.isFinite(limit) ? Math.max(1, Math.min(6, 1 - Math.floor(Math.log10(limit)))) : 2;
}

/** The text of a value in a cell, with `digits` decimals. A value that rounds to zero is written "0". */
export function writtenShort(weighting: Weighting, value: number, digits: number): string {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return "0";
  return weighting !== "contribution" ? text : (value < 0 ? "−" : "+") + text;
}

/** The colour of `value` on a scale from zero (for contributions: from −`limit`) to `limit`. */
export function colourOf(weighting: Weighting, value: number, limit: number, theme: Theme): Rgb {
  return weighting === "contribution"
    ? divergingRgb(value, limit, theme)
    : sequentialRgb(limit > 0 ? value / limit : 0, theme);
}

export function gradient(weighting: Weighting, theme: Theme): string {
  const low = weighting === "contribution" ? -1 : 0;
  const colours = Array.from({ length: 33 }, (_, i) => css(colourOf(weighting, low + ((1 - low) * i) / 32, 1, theme)));
  return `linear-gradient(to right, ${colours.join(", ")})`;
}

interface Reported {
  weighting: Weighting;
  limit: number;
}

/** Collects the largest value of each picture on screen, for the shared colour scale. */
export class Limits {
  readonly #reports = state<ReadonlyMap<string, Reported>>(new Map());
  readonly #value = computed(() => this.#most("value"));
  readonly #contribution = computed(() => this.#most("contribution"));

  constructor(readonly store: Store) {}

  report(picture: string, weighting: Weighting, limit: number): void {
    const before = this.#reports.peek().get(picture);
    if (before?.weighting === weighting && before.limit === limit) return;
    this.#reports.value = new Map(this.#reports.peek()).set(picture, { weighting, limit });
  }
  forget(picture: string): void {
    const left = new Map(this.#reports.peek());
    if (left.delete(picture)) this.#reports.value = left;
  }
  /** The limit of the shared scale: 1 for attention; else the largest reported value, or 0 if there is none. */
  shared(weighting: Weighting): number {
    return weighting === "pattern" ? 1 : weighting === "value" ? this.#value.value : this.#contribution.value;
  }
  #most(weighting: Weighting): number {
    return Math.max(
      0,
      ...[...this.#reports.value.values()].filter((r) => r.weighting === weighting).map((r) => r.limit),
    );
  }
  /** The limit of the scale for a picture whose largest value is `own`. */
  of(weighting: Weighting, own: number): number {
    return this.store.ownRange.value ? own : this.shared(weighting);
  }
}
