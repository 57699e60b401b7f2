// Straight lines as SVG paths, written here because d3-shape with all its curves would add 20 kB to a panel.

/** A point on the page, or a gap in the line. */
export type Point = readonly [x: number, y: number] | null;
/** A part of a band: its x, its lower edge and its upper edge; or a gap. */
export type Slice = readonly [x: number, lower: number, upper: number] | null;

/** The path through the points. A gap ends a line. A point between two gaps becomes a dot if line ends are round. */
export function polyline(points: readonly Point[], digits = 3): string {
  return runs(points)
    .map((run) => `M${run.map((point) => coordinates(point, digits)).join("L")}${run.length === 1 ? "Z" : ""}`)
    .join("");
}

/** The area between the two edges. A gap ends an area. */
export function band(slices: readonly Slice[], digits = 3): string {
  return runs(slices)
    .map((run) => {
      const upper = run.map(([x, , y]) => coordinates([x, y], digits));
      const lower = run.map(([x, y]) => coordinates([x, y], digits)).reverse();
      return `M${[...upper, ...lower].join("L")}Z`;
    })
    .join("");
}

function coordinates([x, y]: readonly [number, number], digits: number): string {
  return `${rounded(x, digits)},${rounded(y, digits)}`;
}

function rounded(value: number, digits: number): number {
  return Math.round(value * 10 ** digits) / 10 ** digits;
}

/** The items, grouped into the runs between gaps. */
function runs<T>(items: readonly (T | null)[]): T[][] {
  const result: T[][] = [[]];
  for (const item of items) {
    if (item === null) result.push([]);
    else result.at(-1)?.push(item);
  }
  return result.filter((run) => run.length > 0);
}
