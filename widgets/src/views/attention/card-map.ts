// The mini-map of a zoomed matrix: the whole matrix, with a frame around the visible part. A click or a drag moves the
// frame. The arrow keys move it by half of the visible part; Home and End move it to an end of the diagonal.
import type { ReadonlySignal, Signal } from "@preact/signals-core";
import { element, watch } from "../../base/lifetime";
import { type Look, paintMatrix } from "../../draw/matrix";
import type { Plane } from "../../draw/plane";
import { type Part, panBy, partOf, type Zoom } from "../../draw/zoom";

/** The side of the mini-map in CSS pixels, as in styles/views/attention.css. */
const SIDE = 40;

export function mountMiniMap(
  parent: HTMLElement,
  plane: ReadonlySignal<Plane | null>,
  look: ReadonlySignal<Look>,
  size: ReadonlySignal<number>,
  part: ReadonlySignal<Part>,
  zoom: Signal<Zoom | null>,
  signal: AbortSignal,
): void {
  const canvas = element("canvas", "", { "aria-hidden": "true" });
  const frame = element("i");
  const map = element(
    "div",
    "rs-mini-map",
    { tabindex: "0", role: "application", "aria-roledescription": "mini-map", hidden: "" },
    canvas,
    frame,
  );
  parent.append(map);

  watch(signal, () => {
    map.hidden = zoom.value === null;
    if (map.hidden || !plane.value) return;
    paintMatrix(canvas, [plane.value], SIDE, { ...look.value, digits: 0 }, partOf(null, size.value));
  });
  watch(signal, () => {
    const { left, top, span } = part.value;
    const all = Math.max(1, size.value);
    Object.assign(frame.style, {
      left: `${(left / all) * 100}%`,
      top: `${(top / all) * 100}%`,
      width: `${(span / all) * 100}%`,
      height: `${(span / all) * 100}%`,
    });
    map.setAttribute(
      "aria-label",
      `In view: destinations ${top} to ${top + span - 1}, sources ${left} to ${left + span - 1}, of ${all}. ` +
        "The arrow keys move this part.",
    );
  });

  const move = (columns: number, rows: number): void => {
    const now = zoom.peek();
    if (now) zoom.value = panBy(now, size.peek(), columns, rows);
  };
  const to = (event: PointerEvent): void => {
    const now = zoom.peek();
    if (!now) return;
    const box = map.getBoundingClientRect();
    const at = (place: number, extent: number): number => (place / extent) * size.peek() - now.span / 2;
    move(at(event.clientX - box.left, box.width) - now.left, at(event.clientY - box.top, box.height) - now.top);
  };
  map.addEventListener(
    "pointerdown",
    (event) => {
      if (event.button !== 0) return;
      map.setPointerCapture(event.pointerId);
      to(event);
    },
    { signal },
  );
  map.addEventListener(
    "pointermove",
    (event) => {
      if (map.hasPointerCapture(event.pointerId)) to(event);
    },
    { signal },
  );
  map.addEventListener(
    "keydown",
    (event) => {
      const now = zoom.peek();
      if (!now) return;
      const half = Math.max(1, now.span / 2);
      const end = size.peek();
      const by: [number, number] | undefined = (
        {
          ArrowLeft: [-half, 0],
          ArrowRight: [half, 0],
          ArrowUp: [0, -half],
          ArrowDown: [0, half],
          Home: [-end, -end],
          End: [end, end],
        } as Record<string, [number, number]>
      )[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      move(...by);
    },
    { signal },
  );
}
