// Where the name of a head is in the scatter plot: beside its head, and not across an axis.
import type { Spot } from "../../state/scatter";

/** In pixels: the size of a letter of a name, and the distances of a name from its head and from the axes. */
const LETTER = { width: 6.4, height: 11 };
const APART = 6;

/** On which side of its head a name is, and how many pixels below its middle, so that no axis crosses the name. */
export function placeOfName(name: string, at: Spot, zero: Spot, percent: number): { isLeft: boolean; down: number } {
  const room = name.length * LETTER.width + APART;
  const [toAxis, above] = [(zero.x - at.x) * percent, (at.y - zero.y) * percent];
  const crosses = toAxis >= 0 && toAxis < room + LETTER.height;
  const isLeft = at.x > 80 || (crosses && at.x * percent > room);
  const least = LETTER.height / 2 + 3;
  const down = Math.abs(above) >= least ? 0 : (above < 0 ? -least : least) - above;
  return { isLeft, down: Math.round(down * 10) / 10 };
}
