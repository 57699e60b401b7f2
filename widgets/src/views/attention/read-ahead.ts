// Requests the attention of heads that the user may point at next, so that their pictures are there in time. These
// requests are sent only while no other request is in flight.
import { computed, type ReadonlySignal, untracked } from "@preact/signals-core";
import { headName, parseHead } from "../../base/format";
import { child, later, watch } from "../../base/lifetime";
import { rank } from "../../state/ranked";
import type { Store } from "../../state/store";
import type { AttentionRoom } from "./attention-room";

/** If the pointer moves on within this time, nothing is requested: the kernel stays free for the next head. */
const REST_MS = 40;
/**
 * On a thrifty transport the user sees each request. There, heads are requested only when the pointer rests this long,
 * and this many heads are requested together.
 */
const THRIFTY = { restMs: 400, heads: 4 };
/** How many of the strongest heads are requested after the neighbours. */
const STRONGEST = 4;
/** For prompts with more positions than this, nothing is requested in advance: their pictures are large and slow. */
const LONGEST = 256;

/** Requests heads in advance while the user points at a head or focuses it, and attention pictures are visible. */
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
    if (at === null || client.inFlight.value > 0) return; // runs again when all requests are answered
    void data.key(at); // subscribes to the selection, which may change while the pointer rests
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

/** A head's neighbours in the map, then the strongest heads of the ranking. */
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
