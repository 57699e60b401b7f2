// Reading a matrix: pointer or arrow keys choose a cell; its row and column light up and a sentence tells its value.
import { type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { signed } from "../format";
import { element, watch } from "../lifetime";
import type { Sentence, Store } from "../store";
import type { Attention } from "./attention-data";

interface Cell {
  q: number;
  k: number;
}

export function mountCursor(
  canvas: HTMLCanvasElement, overlay: HTMLElement, store: Store,
  shown: ReadonlySignal<{ attention: Attention; head: string } | null>, signal: AbortSignal,
): void {
  const cursor = state<Cell | null>(null);
  const destination = element("i", "rs-frame");
  const row = element("i", "rs-lane");
  const column = element("i", "rs-lane");
  const cell = element("i", "rs-frame rs-frame-cell");
  overlay.append(row, column, destination, cell);

  const place = (node: HTMLElement, on: boolean, q: number, k: number, rows: number, columns: number, size: number): void => {
    node.hidden = !on || size === 0;
    node.style.top = `${(q / size) * 100}%`;
    node.style.left = `${(k / size) * 100}%`;
    node.style.height = `${(rows / size) * 100}%`;
    node.style.width = `${(columns / size) * 100}%`;
  };
  watch(signal, () => {
    const size = shown.value?.attention.matrix.size ?? 0;
    const at = cursor.value;
    const token = store.hoveredToken.value;
    const lit = token !== null && token < size;
    const dest = store.destination.value;
    place(destination, dest !== null && dest < size, dest ?? 0, 0, 1, size, size);
    place(row, at !== null || lit, at?.q ?? token ?? 0, 0, 1, size, size);
    place(column, at !== null || lit, 0, at?.k ?? token ?? 0, size, 1, size);
    place(cell, at !== null, at?.q ?? 0, at?.k ?? 0, 1, 1, size);
  });

  const select = (next: Cell | null): void => {
    cursor.value = next;
    store.hoveredToken.value = next?.k ?? null;
    const head = parseLayer(shown.peek()?.head);
    store.hoveredLayer.value = next ? head : null;
  };
  watch(signal, () => {
    const at = cursor.value;
    const picture = shown.value;
    const quantity = store.quantity.value;
    if (at === null || !picture) return;
    const text = sentence(store, picture.attention, picture.head, at, quantity);
    untracked(() => (store.sentence.value = text));
  });
  const leave = (): void => {
    if (cursor.peek() === null) return;
    select(null);
    store.sentence.value = null;
  };
  signal.addEventListener("abort", leave, { once: true });

  canvas.addEventListener("pointermove", (event) => {
    const size = shown.peek()?.attention.matrix.size ?? 0;
    const box = canvas.getBoundingClientRect();
    const index = (at: number, length: number): number => Math.max(0, Math.min(size - 1, Math.floor((at / length) * size)));
    const next = { q: index(event.clientY - box.top, box.height), k: index(event.clientX - box.left, box.width) };
    const last = cursor.peek();
    if (size > 0 && (last?.q !== next.q || last.k !== next.k)) select(next);
  }, { signal });
  canvas.addEventListener("pointerleave", leave, { signal });
  canvas.addEventListener("blur", leave, { signal });
  canvas.addEventListener("keydown", (event) => {
    const size = shown.peek()?.attention.matrix.size ?? 0;
    if (size === 0) return;
    const start = store.destination.peek() ?? size - 1;
    const { q, k } = cursor.peek() ?? { q: start, k: start };
    const clamp = (value: number): number => Math.max(0, Math.min(size - 1, value));
    const to = {
      ArrowUp: { q: clamp(q - 1), k }, ArrowDown: { q: clamp(q + 1), k },
      ArrowLeft: { q, k: clamp(k - 1) }, ArrowRight: { q, k: clamp(k + 1) },
      Home: { q, k: 0 }, End: { q, k: Math.min(q, size - 1) },
    }[event.key];
    if (!to) return;
    event.preventDefault();
    select(cursor.peek() === null && event.key.startsWith("Arrow") ? { q, k } : to);
  }, { signal });
}

function parseLayer(head: string | undefined): number | null {
  const match = /^L(\d+)/.exec(head ?? "");
  return match ? Number(match[1]) : null;
}

function sentence(store: Store, { matrix, brings }: Attention, head: string, { q, k }: Cell, quantity: string): Sentence {
  const value = matrix.values[q * matrix.size + k] ?? NaN;
  const pair = `“${store.tokenText(q)}” (destination ${q}) reads “${store.tokenText(k)}” (source ${k})`;
  if (k > q && !(value > 0)) return [`${head}: “${store.tokenText(q)}” (destination ${q}) cannot see “${store.tokenText(k)}” (source ${k}), which comes later`];
  const start = `${head}: ${pair}: attention ${Number.isNaN(value) ? "not known" : value.toFixed(2)}`;
  const brought = brings?.[k];
  if (brought === undefined || q !== store.destination.value) return [start];
  return [`${start}, brings `, { stress: signed(brought), sign: brought }, ` to the ${quantity}`];
}
