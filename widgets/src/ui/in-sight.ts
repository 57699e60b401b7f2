// Scrolls a sheet so that a part of it can be seen; never the page.

/** The scroll position nearest to `start` that shows `from` to `to` in `room` pixels. */
export function nearest(from: number, to: number, start: number, room: number): number {
  return from < start ? from : to > start + room ? to - room : start;
}
