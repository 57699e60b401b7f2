// Zooming a matrix: Ctrl + wheel zooms about the pointer (a pinch on a touchpad sends the same events). The keys + and
// − zoom about the middle. Dragging moves the visible part; 0 or a double click shows the whole matrix.
import type { ReadonlySignal, Signal } from "@preact/signals-core";
import { watch } from "../../base/lifetime";
import { panBy, type Zoom, zoomBy } from "../../draw/zoom";

export const ZOOM_HINT = "Zoom: Ctrl and wheel, pinch, or the keys + and −. Move: drag. Show all: 0 or double click.";
const STEP = 1.4;

export function mountZoom(
  canvas: HTMLElement,
  zoom: Signal<Zoom | null>,
  size: ReadonlySignal<number>,
  signal: AbortSignal,
): void {
  const by = (factor: number, x?: number, y?: number): void => {
    const all = size.peek();
    const next = zoomBy(zoom.peek() ?? { left: 0, top: 0, span: all }, all, factor, x, y);
    zoom.value = next.span >= all - 0.01 ? null : next;
  };
  watch(signal, () => void canvas.classList.toggle("rs-zoomed", zoom.value !== null));
  let before = size.peek();
  watch(signal, () => {
    if (size.value === before) return;
    before = size.value; // a matrix of another size
    zoom.value = null;
  });

  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // without Ctrl, the wheel scrolls the page
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      const pixels = event.deltaMode === 0 ? event.deltaY : event.deltaY * 30;
      by(
        Math.exp(-Math.max(-60, Math.min(60, pixels)) / 180),
        (event.clientX - box.left) / box.width,
        (event.clientY - box.top) / box.height,
      );
    },
    { signal, passive: false },
  );
  canvas.addEventListener("dblclick", () => (zoom.value = null), { signal });
  canvas.addEventListener(
    "keydown",
    (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return; // for the browser, for example its own zoom
      if (event.key === "+" || event.key === "=") by(STEP);
      else if (event.key === "-") by(1 / STEP);
      else if (event.key === "0") zoom.value = null;
      else return;
      event.preventDefault();
    },
    { signal },
  );

  let held: { x: number; y: number } | null = null;
  canvas.addEventListener(
    "pointerdown",
    (event) => {
      if (event.button !== 0 || zoom.peek() === null) return;
      held = { x: event.clientX, y: event.clientY };
      canvas.setPointerCapture(event.pointerId);
    },
    { signal },
  );
  canvas.addEventListener(
    "pointermove",
    (event) => {
      const now = zoom.peek();
      if (!held || !now) return;
      const box = canvas.getBoundingClientRect();
      zoom.value = panBy(
        now,
        size.peek(),
        ((held.x - event.clientX) / box.width) * now.span,
        ((held.y - event.clientY) / box.height) * now.span,
      );
      held = { x: event.clientX, y: event.clientY };
    },
    { signal },
  );
  for (const end of ["pointerup", "pointercancel"] as const)
    canvas.addEventListener(end, () => (held = null), { signal });
}
