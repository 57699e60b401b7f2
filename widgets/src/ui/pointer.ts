// Pointer events caused by moving the pointer. If contents move under a resting pointer, the user pointed at nothing
// new.

/** Calls `body` for each "pointerover" of a pointer that has moved since the last one, or comes from elsewhere. */
export function whenPointedAt(node: HTMLElement, body: (event: PointerEvent) => void, signal: AbortSignal): void {
  let [x, y] = [NaN, NaN];
  node.addEventListener(
    "pointerover",
    (event) => {
      if (event.clientX === x && event.clientY === y) return;
      // Synthetic events may have no coordinates; NaN equals nothing.
      [x, y] = [Number(event.clientX), Number(event.clientY)];
      body(event);
    },
    { signal },
  );
  node.addEventListener("pointerleave", () => ([x, y] = [NaN, NaN]), { signal });
}
