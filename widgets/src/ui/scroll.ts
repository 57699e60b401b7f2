// Where a box scrolls to, so that a part of its contents is visible.

/**
 * A scroll position at which the pixels `from` to `to` of the contents are visible in a box of `room` pixels. Of all
 * such positions, it is the nearest to the present position, `start`.
 */
export function scrollToShow(from: number, to: number, start: number, room: number): number {
  return from < start ? from : to > start + room ? to - room : start;
}
