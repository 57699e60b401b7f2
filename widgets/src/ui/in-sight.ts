// Scrolling a sheet so that a part of it can be seen: the sheet alone, never the page.

/** Where to scroll to, no farther than needed to have `from` to `to` in `room` pixels. */
export function nearest(from: number, to: number, start: number, room: number): number {
  return from < start ? from : to > start + room ? to - room : start;
}
