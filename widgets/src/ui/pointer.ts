// Pointer events that the user causes by moving the pointer. The browser also sends events when contents move under a
// pointer that rests. This module ignores those events, but passes on the first event, and the first after the pointer
// has left.

/** Calls `body` for a "pointerover" event if it is the first, or if the pointer has moved since the previous one. */
export function whenPointedAt(node: HTMLElement, body: (event: PointerEvent) => void, signal: AbortSignal): void {
  let [x, y] = [NaN, NaN];
  node.addEventListener(
    "pointerover",
    (event) => {
      if (event.clientX === x && event.clientY === y) return;
      // Synthetic events may have no coordinates. Then x and y are NaN, so that the next event counts as a movement.
      [x, y] = [Number(event.clientX), Number(event.clientY)];
      body(event);
    },
    { signal },
  );
  node.addEventListener("pointerleave", () => ([x, y] = [NaN, NaN]), { signal });
}

/**
 * Remembers on which of several places (such as the heads of a map) the pointer rested. On its way out of the map it
 * crosses places that the user does not mean.
 */
export class RestingPlace {
  #at: string | null = null;
  #since = 0;
  #rested: string | null = null;
  #leftRest = -Infinity;

  /** The pointer has come to a place. */
  enter(place: string): void {
    const now = performance.now();
    if (place === this.#at) return;
    if (this.#at !== null && now - this.#since >= REST_MS) [this.#rested, this.#leftRest] = [this.#at, now];
    [this.#at, this.#since] = [place, now];
  }

  /** The pointer has left the map. If it only crossed the last place, returns the place where it rested before. */
  leave(): string | null {
    const now = performance.now();
    const hasCrossed = now - this.#since < REST_MS && now - this.#leftRest < WAY_OUT_MS;
    [this.#at, this.#leftRest] = [null, -Infinity];
    return hasCrossed ? this.#rested : null;
  }
}

/** A pointer that stays this long on a place rests there, in ms. */
const REST_MS = 200;
/** The longest way out, from the place of rest to the edge of the map, in ms. */
const WAY_OUT_MS = 600;
