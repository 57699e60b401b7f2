// The line that the text view shows: a row or a column of its picture. For a long prompt, the kernel computes the line.
import { type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { watch } from "../../base/lifetime";
import { everything, frameOf } from "../../draw/plane";
import { isOutdated } from "../../state/loader";
import { blend } from "../../state/questions";
import { type Direction, type Maps, type Pane, unpacked } from "./attention-data";
import type { AttentionRoom } from "./attention-room";
import { lineOf, unmasked } from "./attention-words";
import { superpose, type TextPicture } from "./text-picture";

export interface TextLine {
  /** The picture that the line belongs to. */
  shown: TextPicture;
  /** The position of the token: the index of the row or column. */
  at: number;
  direction: Direction;
  /** The line of the picture: the mean or the sum over its heads. Masked values are NaN. */
  values: Float32Array;
  /** The line of each head; empty if the picture has all heads of a layer or of the model. */
  parts: { head: string; values: Float32Array; pane: Pane }[];
}

export function readTextLine(
  room: AttentionRoom,
  picture: ReadonlySignal<TextPicture | null>,
  token: ReadonlySignal<number | null>,
  direction: ReadonlySignal<Direction>,
  inSight: ReadonlySignal<boolean>,
  reportTrouble: (sentence: string) => void,
  signal: AbortSignal,
): ReadonlySignal<TextLine | null> {
  const { store, data, client } = room;
  const line = state<TextLine | null>(null);

  watch(signal, () => {
    const shown = picture.value;
    const position = token.value;
    const directionNow = direction.value;
    if (!inSight.value) return;
    if (!shown || position === null || position >= shown.size) return void (line.value = null);
    if (shown.step === 1) return void (line.value = ofMaps(shown, position, directionNow));
    if (data.key("") !== shown.selection) return; // another picture is loading, and a request would be for that one
    const isCurrent = (): boolean =>
      !signal.aborted && picture.peek() === shown && token.peek() === position && direction.peek() === directionNow;
    untracked(() => {
      const request =
        shown.parts.length > 0 ? ofHeads(shown, position, directionNow) : ofBlend(shown, position, directionNow);
      request.then(
        (next) => {
          if (next && isCurrent()) line.value = next;
        },
        (error: unknown) => {
          if (isCurrent() && !isOutdated(error, store))
            reportTrouble(error instanceof Error ? error.message : String(error));
        },
      );
    });
  });

  function ofMaps(shown: TextPicture, position: number, direction: Direction): TextLine {
    const parts = shown.parts.map(({ head, attention, values }) => ({
      head,
      values: lineOf(values, shown.size, direction, position),
      pane: attention,
    }));
    const values =
      parts.length === 1 && parts[0] ? parts[0].values : lineOf(shown.values, shown.size, direction, position);
    return { shown, at: position, direction, values, parts };
  }

  async function ofHeads(shown: TextPicture, position: number, direction: Direction): Promise<TextLine | null> {
    const all = await Promise.all(
      shown.parts.map(({ head }) => data.line(`text row ${head}`, head, shown.weighting, direction, position)),
    );
    const received = all.flatMap((maps, i) =>
      maps
        ? [
            {
              head: shown.parts[i]?.head ?? "",
              values: masked(maps, shown, direction, position),
              pane: paneOf(maps, shown.size, direction, position),
            },
          ]
        : [],
    );
    if (received.length < all.length) return null; // a newer request has replaced one of these requests
    return {
      shown,
      at: position,
      direction,
      values: superpose(
        received.map((part) => part.values),
        shown.weighting,
      ),
      parts: received,
    };
  }

  async function ofBlend(shown: TextPicture, position: number, direction: Direction): Promise<TextLine | null> {
    if (!store.settled.peek()) return null;
    const span = { start: position, stop: position + 1 };
    const part = direction === "reads" ? { rows: span } : { columns: span };
    const request = untracked(() => blend(store.shown, shown.layer, shown.weighting, part));
    const result = await client.latest("text blend row", request);
    if (!result) return null;
    const map = unpacked(result.reply.part, result.buffers[0], frameOf(result.reply));
    return { shown, at: position, direction, values: unmasked(map, direction, position), parts: [] };
  }
  return line;
}

function masked(maps: Maps, { weighting, size }: TextPicture, direction: Direction, position: number): Float32Array {
  return unmasked(maps[weighting] ?? new Float32Array(size).fill(NaN), direction, position);
}

function paneOf(maps: Maps, size: number, direction: Direction, position: number): Pane {
  const all = everything(size);
  const span = { start: position, stop: position + 1 };
  return direction === "reads"
    ? { rows: span, columns: all.columns, step: 1, maps }
    : { rows: all.rows, columns: span, step: 1, maps };
}
