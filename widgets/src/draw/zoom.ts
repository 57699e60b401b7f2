// The visible part of a matrix. A zoom keeps fractions of cells, so that small gestures add up. Only whole cells are
// drawn.
export interface Zoom {
  left: number;
  top: number;
  span: number;
}
/** The visible part, in whole cells. */
export type Part = Zoom;

/** The side of the visible part, in cells, at the largest zoom. */
const CLOSEST = 4;

const clamp = (value: number, low: number, high: number): number => Math.max(low, Math.min(high, value));

function inside({ left, top, span }: Zoom, size: number): Zoom {
  return { left: clamp(left, 0, size - span), top: clamp(top, 0, size - span), span };
}

/** Zooms in by `factor` (out if it is below 1). The point `x`, `y`, in fractions of the picture, stays in place. */
export function zoomBy(zoom: Zoom, size: number, factor: number, x = 0.5, y = 0.5): Zoom {
  const span = clamp(zoom.span / factor, Math.min(CLOSEST, size), size);
  return inside({ left: zoom.left + x * (zoom.span - span), top: zoom.top + y * (zoom.span - span), span }, size);
}

export function panBy(zoom: Zoom, size: number, columns: number, rows: number): Zoom {
  return inside({ ...zoom, left: zoom.left + columns, top: zoom.top + rows }, size);
}

/** The zoom, moved only as far as needed to show a cell. */
export function bringIntoSight(zoom: Zoom, size: number, q: number, k: number): Zoom {
  const { left, top, span } = partOf(zoom, size);
  const to = (cell: number, start: number): number =>
    cell < start ? cell : cell >= start + span ? cell - span + 1 : start;
  return to(k, left) === left && to(q, top) === top
    ? zoom
    : inside({ left: to(k, left), top: to(q, top), span: zoom.span }, size);
}

/** The visible part; the whole matrix if there is no zoom. */
export function partOf(zoom: Zoom | null, size: number): Part {
  if (!zoom) return { left: 0, top: 0, span: size };
  const span = Math.min(size, Math.round(zoom.span));
  return { left: clamp(Math.round(zoom.left), 0, size - span), top: clamp(Math.round(zoom.top), 0, size - span), span };
}
