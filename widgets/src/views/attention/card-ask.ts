// A click on an attention cell, or Enter, shows the buttons "why here?" and, if it can be asked, "who put it?" next to
// the cell. The keys w and p ask the same questions without the buttons.
import type { ReadonlySignal } from "@preact/signals-core";
import { signal as state } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { element, watch } from "../../base/lifetime";
import type { Part } from "../../draw/zoom";
import type { Spot } from "../../state/reading";
import { askWho, askWhy, canAskWho } from "../../state/trail";
import { closeElsewhere } from "../../ui/popover";
import type { AttentionRoom } from "./attention-room";
import type { Cell, Shown } from "./card-cursor";

/** If the pointer moves farther than this between pressing and releasing, the user has dragged the map. */
const DRAGGED_PX = 4;

export function mountCardAsk(
  field: HTMLElement,
  canvases: HTMLElement[],
  { store }: AttentionRoom,
  shown: ReadonlySignal<Shown | null>,
  cursor: ReadonlySignal<Cell | null>,
  part: ReadonlySignal<Part>,
  signal: AbortSignal,
): void {
  const place = element("div", "rs-cell-ask", { role: "group", "aria-label": "Ask about this cell", hidden: "" });
  field.append(place);
  const open = state<Spot | null>(null);
  const spotAt = (cell: Cell | null): Spot | null => {
    const picture = shown.peek();
    if (!cell || !picture || cell.k > cell.q) return null;
    return { head: picture.head, destination: cell.q, source: cell.k };
  };
  watch(signal, () => {
    const spot = spotAt(cursor.value);
    if (spot) store.spot.value = spot;
  });
  watch(signal, () => {
    void shown.value?.key; // closes the buttons when another picture is shown
    open.value = null;
  });

  watch(signal, () => {
    const spot = open.value;
    place.hidden = spot === null;
    if (!spot) return render(nothing, place);
    const { left, top, span } = part.value;
    const across = (spot.source - left + 0.5) / span;
    place.style.left = `${Math.min(0.98, Math.max(0.02, across)) * 100}%`;
    place.style.top = `${(((spot.destination ?? 0) - top + 1) / span) * 100}%`;
    place.classList.toggle("rs-tip-left", across > 0.5);
    const token = store.tokenName(spot.source);
    render(
      html`<button type="button" class="rs-ask" data-ask="why" title="Why does ${spot.head} read ${token}? (key w)"
          aria-label="why here? ${spot.head} reads ${token}" @click=${() => askWhy(store, spot)}>why here?</button>
        ${
          canAskWho(store, spot)
            ? html`<button type="button" class="rs-ask" data-ask="who"
              title="Which components wrote what ${spot.head} moves from ${token}? (key p)"
              aria-label="who put it? what ${spot.head} moves from ${token}"
              @click=${() => askWho(store, spot)}>who put it?</button>`
            : nothing
        }`,
      place,
    );
  });

  for (const canvas of canvases) {
    let down: { x: number; y: number } | null = null;
    canvas.addEventListener("pointerdown", ({ clientX, clientY }) => (down = { x: clientX, y: clientY }), { signal });
    canvas.addEventListener(
      "click",
      ({ clientX, clientY }) => {
        const dragged = down !== null && Math.hypot(clientX - down.x, clientY - down.y) > DRAGGED_PX;
        if (!dragged) open.value = spotAt(cursor.peek());
      },
      { signal },
    );
    canvas.addEventListener(
      "keydown",
      (event) => {
        if (event.key !== "Enter") return;
        open.value = spotAt(cursor.peek());
        place.querySelector("button")?.focus();
        event.preventDefault();
      },
      { signal },
    );
  }
  const close = (): void => void (open.value = null);
  field.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "Escape" || open.peek() === null) return;
      event.stopPropagation();
      close();
      canvases[0]?.focus();
    },
    { signal },
  );
  closeElsewhere(field, () => open.peek() !== null, close, signal);
}
