// A plane is a part of a map, in blocks. For a long prompt the kernel sends one value for each block of `step` × `step`
// cells. For a short prompt `step` is 1, and the plane is the whole map.
import type { Part } from "./zoom";

/** Positions from `start` up to, not including, `stop`. */
export interface Span {
  start: number;
  stop: number;
}
export interface Frame {
  rows: Span;
  columns: Span;
  step: number;
}
export interface Plane extends Frame {
  /** [block of destinations, block of sources], row-major. A block with NaN stays empty. */
  values: Float32Array;
}

/** The kernel sends at most this many values of a map; see py_backend/residscope/patterns/downsampling.py. */
const MAX_SENT = 512 * 512;

export const length = ({ start, stop }: Span): number => stop - start;
export const blocks = (span: Span, step: number): number => Math.ceil(length(span) / step);
export const within = ({ start, stop }: Span, position: number): boolean => position >= start && position < stop;

/** A whole map with a value for each cell. */
export function whole(size: number, values: Float32Array): Plane {
  return { ...everything(size), step: 1, values };
}
export function everything(size: number): { rows: Span; columns: Span } {
  return { rows: { start: 0, stop: size }, columns: { start: 0, stop: size } };
}

/** The positions that a reply's maps cover. */
export function frameOf({
  positions,
  rows,
  columns,
  step,
}: {
  positions: number;
  rows?: Span | null;
  columns?: Span | null;
  step?: number;
}): Frame {
  const all = everything(positions);
  return { rows: rows ?? all.rows, columns: columns ?? all.columns, step: step ?? 1 };
}

/** The side of a block, in cells, that the kernel chooses for a map of this size. */
export function stepOf(rows: number, columns: number): number {
  let step = Math.max(1, Math.floor(Math.sqrt((rows * columns) / MAX_SENT)));
  while (Math.ceil(rows / step) * Math.ceil(columns / step) > MAX_SENT) step += 1;
  return step;
}

/** The index of the value that a cell belongs to; −1 if the cell is not in this part. */
export function indexOf({ rows, columns, step }: Frame, q: number, k: number): number {
  if (!within(rows, q) || !within(columns, k)) return -1;
  return Math.floor((q - rows.start) / step) * blocks(columns, step) + Math.floor((k - columns.start) / step);
}

/** The positions of the block that a cell is in. */
export function blockOf({ rows, columns, step }: Frame, q: number, k: number): { rows: Span; columns: Span } {
  const of = (span: Span, position: number): Span => {
    const start = span.start + Math.floor((position - span.start) / step) * step;
    return { start, stop: Math.min(span.stop, start + step) };
  };
  return { rows: of(rows, q), columns: of(columns, k) };
}

export function covers({ rows, columns }: Frame, { left, top, span }: Part): boolean {
  return rows.start <= top && rows.stop >= top + span && columns.start <= left && columns.stop >= left + span;
}

/** The blocks of a plane that overlap a part: their frame, and a function that copies their values out of the plane. */
export function cropped(
  plane: Frame,
  { left, top, span }: Part,
): { frame: Frame; take: (planeValues: Float32Array) => Float32Array } {
  const cut = (of: Span, position: number): Span => ({
    start: of.start + Math.floor((Math.max(position, of.start) - of.start) / plane.step) * plane.step,
    stop: Math.min(of.stop, of.start + Math.ceil((position + span - of.start) / plane.step) * plane.step),
  });
  const frame: Frame = { rows: cut(plane.rows, top), columns: cut(plane.columns, left), step: plane.step };
  const [down, across, perRow] = [
    blocks(frame.rows, frame.step),
    blocks(frame.columns, frame.step),
    blocks(plane.columns, plane.step),
  ];
  const take = (planeValues: Float32Array): Float32Array => {
    const out = new Float32Array(down * across);
    const from = indexOf(plane, frame.rows.start, frame.columns.start);
    for (let row = 0; row < down; row += 1)
      out.set(planeValues.subarray(from + row * perRow, from + row * perRow + across), row * across);
    return out;
  };
  return { frame, take };
}

/**
 * The rows and columns to request, so that a part is shown in smaller blocks than `step`; null if the kernel would not
 * send smaller blocks. A small part gets a margin, so that the user can move it a little without a new request.
 */
export function finer(part: Part, size: number, step: number): { rows: Span; columns: Span } | null {
  if (part.span === 0 || stepOf(part.span, part.span) >= step) return null;
  const side = Math.min(size, Math.max(part.span, part.span <= 384 ? 512 : 0));
  const around = (start: number): Span => {
    const from = Math.max(0, Math.min(size - side, start - Math.floor((side - part.span) / 2)));
    return { start: from, stop: from + side };
  };
  return { rows: around(part.top), columns: around(part.left) };
}
