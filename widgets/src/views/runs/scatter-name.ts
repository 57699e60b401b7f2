// Where the names of heads are in the scatter plot: beside their heads, not across an axis, and not across other names.
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

export interface Named {
  name: string;
  at: Spot;
  /** Whether the name is always shown. */
  isPinned: boolean;
}
export type PlaceOfName = ReturnType<typeof placeOfName>;

/** How far a name may be moved up or down to make room, in pixels: so little that it stays beside its head. */
const SHIFTS = [0, 4, -4, 8, -8, 12, -12];

/** The places of several names, the most important name first. A name for which there is no room has none (null). */
export function placesOfNames(all: Named[], zero: Spot, percent: number): (PlaceOfName | null)[] {
  const taken: { left: number; right: number; middle: number }[] = [];
  const boxOf = ({ name, at }: Named, { isLeft, down }: PlaceOfName): (typeof taken)[number] => {
    const width = name.length * LETTER.width;
    const left = at.x * percent + (isLeft ? -APART - width : APART);
    return { left, right: left + width, middle: at.y * percent + down };
  };
  const places = new Map<Named, PlaceOfName>();
  for (const one of [...all.filter(({ isPinned }) => isPinned), ...all.filter(({ isPinned }) => !isPinned)]) {
    const best = placeOfName(one.name, one.at, zero, percent);
    const found = [best, { isLeft: !best.isLeft, down: best.down }]
      .flatMap(({ isLeft, down }) => SHIFTS.map((shift) => ({ isLeft, down: down + shift })))
      .find((place) => {
        const { left, right, middle } = boxOf(one, place);
        const isInside = left >= 0 && right <= 100 * percent;
        const isFree = taken.every(
          (other) => right < other.left || left > other.right || Math.abs(middle - other.middle) >= LETTER.height,
        );
        return isInside && isFree;
      });
    const place = found ?? (one.isPinned ? best : null);
    if (!place) continue;
    places.set(one, place);
    taken.push(boxOf(one, place));
  }
  return all.map((one) => places.get(one) ?? null);
}
