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
