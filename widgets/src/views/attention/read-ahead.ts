// Heads that the pointer may go to next are asked for ahead, while nothing else is: their pictures are there when it
// comes.
import { computed, type ReadonlySignal, untracked } from "@preact/signals-core";
import { headName, parseHead } from "../../base/format";
import { child, later, watch } from "../../base/lifetime";
import { rank } from "../../state/ranked";
import type { Store } from "../../state/store";
import type { AttentionRoom } from "./attention-room";

/** A pointer that moves on within this time needs the kernel for where it goes. */
const REST_MS = 40;
/**
 * The same where the user sees each request: who rests as long looks, and does not just pass. Then so many heads, in
 * one.
 */
const THRIFTY = { restMs: 400, heads: 4 };
/** So many of the strongest heads, besides the neighbours. */
const STRONGEST = 4;
/** Pictures of longer prompts are large, and dear to make. */
const LONGEST = 256;

/** Reads ahead while a head is pointed at or has the focus, and its card is in sight. */
export function mountReadAhead(room: AttentionRoom, inSight: ReadonlySignal<boolean>, signal: AbortSignal): void {
  const { store, client, data } = room;
  const thrifty = client.transport.thrifty ?? false;
  const head = computed(() =>
    inSight.value && (store.facts.value?.positions ?? 0) <= LONGEST ? store.hoveredHead.value : null,
  );
  let now = child(signal);

  watch(signal, () => {
    now.abort();
    const at = head.value;
    if (at === null || client.inFlight.value > 0) return; // and again, when all has been answered
    void data.key(at); // what is in view may change under the pointer
    const weighting = store.weighting.value;
    const { signal: while_ } = (now = child(signal));
    untracked(() => {
      const wanted = nextTo(store, at)
        .slice(0, thrifty ? THRIFTY.heads : undefined)
        .filter((name) => !data.has(name, weighting));
      const next = async (): Promise<void> => {
        const names = wanted.splice(0, thrifty ? THRIFTY.heads : 1);
        if (names.length > 0 && (await data.readAhead(names, weighting, while_))) await next();
      };
      if (wanted.length > 0) later(thrifty ? THRIFTY.restMs : REST_MS, while_, () => void next());
    });
  });
}

/** The heads around one in the map, then the strongest of the ranking. */
export function nextTo(store: Store, name: string): string[] {
  const at = parseHead(name);
  const facts = store.facts.peek();
  if (!at || !facts) return [];
  const around = [
    [0, 1],
    [0, -1],
    [1, 0],
    [-1, 0],
  ]
    .map(([down = 0, right = 0]) => ({ layer: at.layer + down, head: at.head + right }))
    .filter(({ layer, head }) => layer >= 0 && head >= 0 && layer < facts.layers && head < facts.heads)
    .map(({ layer, head }) => headName(layer, head));
  const rows = store.headRows.peek()?.rows.subarray(0, facts.layers * facts.heads) ?? new Float32Array(0);
  const { plus, minus } = rank(rows, facts.heads, Math.min(store.topK.peek(), STRONGEST));
  const strongest = [...plus, ...minus]
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
    .slice(0, STRONGEST)
    .map((ranked) => ranked.name);
  return [...new Set([...around, ...strongest])].filter((other) => other !== name && !store.isAbsent(other));
}
