// The segments of the shown prompt: named ranges of its tokens, from the kernel. The token strip folds them.
import type { SegmentLabel, SegmentsReply } from "../wire/protocol.gen";

export interface SegmentsFound {
  /** The key, from `promptKey`, of the prompt that the segments belong to. */
  key: string;
  reply: SegmentsReply;
}

/** The key of a prompt of a cache. `state` is the `dataKey` of the store. */
export function promptKey(state: string, prompt: number | null): string {
  return `${state} ${prompt}`;
}

/** The segment that contains a position; undefined if none does, as at padding. */
export function segmentAt(segments: readonly SegmentLabel[], position: number): SegmentLabel | undefined {
  return segments.find(({ start, end }) => start <= position && position < end);
}

/** The sum of finite values over the positions of a segment; NaN if there is none. */
export function sumOver(values: ArrayLike<number>, { start, end }: SegmentLabel): number {
  let [sum, count] = [0, 0];
  for (let at = Math.max(0, start); at < end; at += 1) {
    const value = values[at] ?? NaN;
    if (!Number.isFinite(value)) continue;
    sum += value;
    count += 1;
  }
  return count > 0 ? sum : NaN;
}

/** The mean of finite values over the positions of a segment; NaN if there is none. */
export function meanOver(values: ArrayLike<number>, segment: SegmentLabel): number {
  let count = 0;
  for (let at = Math.max(0, segment.start); at < segment.end; at += 1) if (Number.isFinite(values[at])) count += 1;
  return count > 0 ? sumOver(values, segment) / count : NaN;
}
