// Where the names of heads are in the scatter plot: beside their heads, not across an axis, and not across each other.
import type { Spot } from "../../state/scatter";

/** The size of a name, and its distance from its head (`apart`). */
export interface Letters {
  width: (name: string) => number;
  height: number;
  apart: number;
}
const LETTER = { width: 6.4, height: 11 };
export const ON_SCREEN: Letters = { width: (name) => name.length * LETTER.width, height: LETTER.height, apart: 6 };

export interface Place {
  isLeft: boolean;
  /** How far the middle of the name is below the middle of its head. */
  down: number;
}

/** The place of a name beside its head, so that no axis crosses the name. */
export function placeOfName(name: string, at: Spot, zero: Spot, percent: number, letters = ON_SCREEN): Place {
  const room = letters.width(name) + letters.apart;
  const [toAxis, above] = [(zero.x - at.x) * percent, (at.y - zero.y) * percent];
  const crosses = toAxis >= 0 && toAxis < room + letters.height;
  const isLeft = (100 - at.x) * percent < room || at.x > 80 || (crosses && at.x * percent > room);
  const least = letters.height / 2 + 3;
  const down = Math.abs(above) >= least ? 0 : (above < 0 ? -least : least) - above;
  return { isLeft, down: Math.round(down * 10) / 10 };
}

/** A rectangle in pixels. */
export interface Rect {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

function rectOf(name: string, { x, y }: Spot, { isLeft, down }: Place, percent: number, letters: Letters): Rect {
  const [near, middle] = [x * percent + (isLeft ? -letters.apart : letters.apart), y * percent + down];
  const far = near + (isLeft ? -1 : 1) * letters.width(name);
  const [left, right] = [Math.min(near, far), Math.max(near, far)];
  return { left, right, top: middle - letters.height / 2, bottom: middle + letters.height / 2 };
}

const touch = (a: Rect, b: Rect): boolean =>
  a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

interface Named {
  /** The text that is written: "L23H3", "L23H3 +0.43". */
  name: string;
  at: Spot;
  /** Whether the name is written even if it touches another one. */
  isSure: boolean;
}

/**
 * The places of several names; the first ones choose first. Null: there is no room for this name. A place where the
 * name covers no heads is preferred. `dots` are all heads; `percent` is the length of a percent of the plot; `others`
 * are other texts.
 */
export function placesOfNames(
  names: readonly Named[],
  zero: Spot,
  dots: readonly Spot[],
  percent: number,
  letters = ON_SCREEN,
  others: readonly Rect[] = [],
): (Place | null)[] {
  const taken = [...others];
  const side = 100 * percent;
  const axes: Rect[] = [
    { left: zero.x * percent, right: zero.x * percent, top: 0, bottom: side },
    { left: 0, right: side, top: zero.y * percent, bottom: zero.y * percent },
  ];
  return names.map(({ name, at, isSure }) => {
    const best = placeOfName(name, at, zero, percent, letters);
    const steps = [0, 0.5, -0.5, 1, -1, 1.5, -1.5].map((step) => step * letters.height);
    const places = [best.isLeft, !best.isLeft].flatMap((isLeft) =>
      steps.map((step) => ({ isLeft, down: Math.round((best.down + step) * 10) / 10 })),
    );
    let [chosen, least]: [Place | null, number] = [null, Infinity];
    places.forEach((place, order) => {
      const rect = rectOf(name, at, place, percent, letters);
      const isInside = rect.left >= 0 && rect.right <= side && rect.top >= 0 && rect.bottom <= side;
      const isFree = isInside && !taken.some((other) => touch(rect, other));
      if (!isFree && !isSure) return;
      const under = dots.filter(({ x, y }) =>
        touch(rect, { left: x * percent, right: x * percent, top: y * percent, bottom: y * percent }),
      ).length;
      const crossed = axes.filter((axis) => touch(rect, axis)).length;
      const cost = (isFree ? 0 : 1000) + 4 * crossed + under + order / 10;
      if (cost < least) [chosen, least] = [place, cost];
    });
    if (chosen) taken.push(rectOf(name, at, chosen, percent, letters));
    return chosen;
  });
}
