// What the pointer comes upon by moving. Where contents move under a pointer that rests, nothing was pointed at.

/** Calls `body` for each "pointerover" of a pointer that has moved since the last one, or comes from elsewhere. */
export function whenPointedAt(node: HTMLElement, body: (event: PointerEvent) => void, signal: AbortSignal): void {
  let [x, y] = [NaN, NaN];
  node.addEventListener(
    "pointerover",
    (event) => {
      if (event.clientX === x && event.clientY === y) return;
      [x, y] = [Number(event.clientX), Number(event.clientY)]; // NaN, like no other, where it has no place
      body(event);
    },
    { signal },
  );
  node.addEventListener("pointerleave", () => ([x, y] = [NaN, NaN]), { signal });
}
