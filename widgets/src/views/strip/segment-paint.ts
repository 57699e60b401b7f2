// The colours of the chips of segments. They mean the same as those of tokens: the tint shows how much the head in
// focus reads the segment, the bar shows what the head adds by this reading. Both are sums over the tokens. If no head
// is in focus, the tint shows what all heads add. If each position has its own target, the tint is the mean over the
// tokens. If a feature is chosen, the tint shows its strongest activation.
import type { ReadonlySignal } from "@preact/signals-core";
import { plural, quoted, signed } from "../../base/format";
import { watch } from "../../base/lifetime";
import type { Sentence } from "../../base/sentence";
import { css, divergingRgb, limitOf, sequentialRgb } from "../../draw/colours";
import { inkOn } from "../../draw/ink";
import type { FeatureTokens } from "../../state/feature-tokens";
import { showsEach } from "../../state/next-tokens";
import type { Reading } from "../../state/reading";
import { meanOver, sumOver } from "../../state/segments";
import type { Store } from "../../state/store";
import type { SegmentLabel } from "../../wire/protocol.gen";
import type { Added } from "./next-values";
import type { Focus } from "./reading";
import { attention, tallest, WHICH_ADDS } from "./reading-words";
import { extent, isOpen, segmentName } from "./segment-chips";
import type { Whole } from "./segment-whole";
import { activation, activationRgb, showsFeature } from "./strip-feature";
import { surpriseOf } from "./strip-next";

/** The height of the tallest bar, in pixels. */
export const TALLEST = 6;

/** The scale of the bars of tokens and chips together. */
export function tallestShown(store: Store, contributions: Float32Array | null): number {
  const most = tallest(store, contributions);
  if (!contributions) return most;
  return Math.max(most, largestSum(store, contributions));
}

/** The largest absolute sum over a segment. */
function largestSum(store: Store, contributions: Float32Array): number {
  return limitOf((store.segmentsShown.value ?? []).map((segment) => sumOver(contributions, segment)));
}

/** The bar below a token or a chip, as styles. */
export function barStyle(store: Store, added: number, most: number): string {
  const share = most > 0 ? Math.abs(added) / most : 0;
  const height = share < 0.03 ? 0 : Math.max(1, share * TALLEST);
  return `--bar:${height.toFixed(1)}px;--sign:${css(divergingRgb(added < 0 ? -0.72 : 0.72, 1, store.theme.value))}`;
}

/** How much the head in focus reads a segment, and what it adds by this reading; null if that is not known. */
function readOf({ weights, contributions }: Reading, segment: SegmentLabel): { weight: number; added: number | null } {
  const added = contributions ? sumOver(contributions, segment) : NaN;
  return { weight: sumOver(weights, segment), added: Number.isFinite(added) ? added : null };
}

/** The mean of what is added to each token, or of its surprise. The value of a token is at the position before it. */
function eachOf(store: Store, added: Added | null, { start, end, ...segment }: SegmentLabel): number {
  const values = added?.values ?? store.nextShown.value?.logProb ?? new Float32Array(0);
  const mean = meanOver(values, { ...segment, start: start - 1, end: end - 1 });
  return added ? mean : -mean;
}

export function paintSegments(
  strip: HTMLElement,
  store: Store,
  focus: Focus,
  added: ReadonlySignal<Added | null>,
  whole: ReadonlySignal<Whole | null>,
  drawn: ReadonlySignal<number>,
  signal: AbortSignal,
): void {
  watch(signal, () => {
    void drawn.value;
    const segments = store.segmentsShown.value;
    if (!segments) return;
    const theme = store.theme.value;
    const feature = showsFeature(store) ? store.featureShown.value : null;
    const each = showsEach(store);
    const reading = each ? null : focus.strip.value;
    const most = tallestShown(store, reading?.contributions ?? null);
    const all = each || reading ? null : whole.value;
    const limit = all ? largestSum(store, all.contributions) : 0;
    for (const node of strip.querySelectorAll<HTMLElement>("[data-segment]")) {
      const segment = segments[Number(node.dataset["segment"])];
      for (const name of ["data-attention", "data-added", "data-value", "aria-description"]) node.removeAttribute(name);
      node.style.cssText = "";
      if (!segment) continue;
      if (feature) {
        const value = feature.values[strongest(feature.values, segment)] ?? NaN;
        if (!Number.isFinite(value)) continue;
        const colour = activationRgb(feature.values, value, theme);
        node.dataset["value"] = value.toFixed(4);
        node.setAttribute("aria-description", plain(featureWords(feature, segment)));
        node.style.cssText = `--read:${css(colour)};--ink:${inkOn(colour)}`;
      } else if (each) {
        const value = eachOf(store, added.value, segment);
        if (!Number.isFinite(value)) continue;
        const shown = added.value;
        const colour = shown
          ? divergingRgb(value, shown.limit, theme)
          : sequentialRgb(value / surpriseOf(store), theme);
        node.dataset["value"] = value.toFixed(4);
        node.setAttribute("aria-description", plain(eachWords(store, shown, segment)));
        node.style.cssText = `--read:${css(colour)};--ink:${inkOn(colour)}`;
      } else if (reading) {
        const { weight, added: sum } = readOf(reading, segment);
        if (!Number.isFinite(weight)) continue;
        const colour = sequentialRgb(weight, theme);
        node.dataset["attention"] = weight.toFixed(4);
        if (sum !== null) node.dataset["added"] = sum.toFixed(4);
        node.setAttribute("aria-description", plain(readWords(store, reading, segment)));
        node.style.cssText = `--read:${css(colour)};--ink:${inkOn(colour)};${barStyle(store, sum ?? 0, most)}`;
      } else if (all) {
        const sum = sumOver(all.contributions, segment);
        if (!Number.isFinite(sum)) continue;
        const colour = divergingRgb(sum, limit, theme);
        node.dataset["added"] = sum.toFixed(4);
        node.setAttribute("aria-description", plain(wholeWords(store, all, segment)));
        node.style.cssText = `--read:${css(colour)};--ink:${inkOn(colour)}`;
      }
    }
  });
}

/** The position in a segment whose activation is farthest from 0. NaN is never farther. */
function strongest(values: Float32Array, { start, end }: SegmentLabel): number {
  let most = start;
  for (let at = start + 1; at < end; at++) {
    const [size, before] = [Math.abs(values[at] ?? NaN), Math.abs(values[most] ?? NaN)];
    if (size > before || Number.isNaN(before)) most = at;
  }
  return most;
}

/** What is shown of a segment if a feature is chosen. */
const featureWords = (feature: FeatureTokens, segment: SegmentLabel): Sentence => [
  "strongest activation ",
  activation(feature, strongest(feature.values, segment)),
];

const plain = (sentence: Sentence): string =>
  sentence.map((part) => (typeof part === "string" ? part : part.stress)).join("");

/** “attention 0.62 in sum, which adds +1.83”. */
function readWords(store: Store, reading: Reading, segment: SegmentLabel): Sentence {
  const { weight, added } = readOf(reading, segment);
  const start = `attention ${attention(weight)} in sum`;
  if (added === null) return [start];
  return [start, WHICH_ADDS, { stress: signed(added, tallestShown(store, reading.contributions)) }];
}

function wholeWords(store: Store, { contributions }: Whole, segment: SegmentLabel): Sentence {
  const sum = signed(sumOver(contributions, segment), largestSum(store, contributions));
  return ["what all heads together move from it adds ", { stress: sum }];
}

function eachWords(store: Store, added: Added | null, segment: SegmentLabel): Sentence {
  const value = eachOf(store, added, segment);
  if (!Number.isFinite(value)) return ["no token before it"];
  return added
    ? [`${added.name} adds `, { stress: signed(value, added.limit) }, " to each of its tokens on average"]
    : [`mean surprise −log p ${value.toFixed(2)}`];
}

/** The sentence about a segment: “L23H3 at ·to reads “user” (34 tokens): attention 0.62 in sum, which adds +1.83”. */
export function segmentSentence(
  store: Store,
  focus: Focus,
  added: Added | null,
  whole: Whole | null,
  segment: SegmentLabel,
): Sentence {
  const name = quoted(segmentName(segment));
  const click = ` · click to ${isOpen(store, segment) ? "fold" : "unfold"}`;
  const feature = showsFeature(store) ? store.featureShown.value : null;
  if (feature) return [`${name}, ${extent(segment)}: `, ...featureWords(feature, segment), click];
  if (showsEach(store)) return [`${name}, ${extent(segment)}: `, ...eachWords(store, added, segment), click];
  const reading = focus.said.value;
  if (!reading)
    return [`${name}, ${extent(segment)}`, ...(whole ? [": ", ...wholeWords(store, whole, segment)] : []), click];
  const { head, destination } = reading;
  const where = destination === null ? "" : ` at ${store.tokenName(destination)}`;
  if (destination !== null && segment.start > destination)
    return [`${head}${where} cannot see ${name}, which comes later`, click];
  const count = plural(segment.end - segment.start, "token");
  return [`${head}${where} reads ${name} (${count}): `, ...readWords(store, reading, segment), click];
}
