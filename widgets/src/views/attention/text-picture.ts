// The picture of the text view: the mean of the maps of some heads (the sum, if the maps are contributions). If all
// heads of a layer or of the model are chosen, the kernel computes the picture; this is called a blend.
import { computed, type ReadonlySignal, type Signal, signal as state, untracked } from "@preact/signals-core";
import { headName } from "../../base/format";
import { watch } from "../../base/lifetime";
import { limitOf } from "../../draw/colours";
import { frameOf, stepOf } from "../../draw/plane";
import { isOutdated } from "../../state/loader";
import { blend, lineOf } from "../../state/questions";
import type { Weighting } from "../../state/store";
import { type Attention, unpacked, whyMissing } from "./attention-data";
import type { AttentionRoom } from "./attention-room";

/** The chosen heads: their names, or all heads of a layer (null: of the model). */
export type Wanted = { heads: string[] } | { layer: number | null };

export interface TextPicture {
  /** The heads in words: "L9H9", "mean of L9H9 and L9H6", "sum of all 9 heads of layer 9" */
  name: string;
  /** The names of the heads. */
  heads: string[];
  /** The key of the selection that the picture belongs to. */
  selection: string;
  weighting: Weighting;
  size: number;
  /** The side of a block, in cells. If it is above 1 (for a long prompt), each line is requested when it is needed. */
  step: number;
  /** The layer of a blend; null for a blend of all layers, and for chosen heads. */
  layer: number | null;
  /** The mean or the sum of the maps, [destination, source]; only one row for a blend of a long prompt. */
  values: Float32Array;
  /** The largest absolute value in `values`. */
  limit: number;
  /** The maps of each head; empty for a blend. */
  parts: { head: string; attention: Attention; values: Float32Array }[];
  notes: string[];
}

/** The mean of the maps. For contributions it is the sum, because contributions add up. */
export function superpose(maps: Float32Array[], weighting: Weighting): Float32Array {
  const [first] = maps;
  if (!first) return new Float32Array(0);
  if (maps.length === 1) return first;
  const share = weighting === "contribution" ? 1 : 1 / maps.length;
  const sum = new Float32Array(first.length);
  for (const map of maps) for (let i = 0; i < sum.length; i += 1) sum[i] = (sum[i] ?? 0) + (map[i] ?? NaN) * share;
  return sum;
}

const operation = (weighting: Weighting): string => (weighting === "contribution" ? "sum" : "mean");

/** The name of a picture (`TextPicture.name`). `heads` is the number of heads; only a blend needs it. */
export function nameOf(wanted: Wanted, weighting: Weighting, heads: number): string {
  if ("heads" in wanted) {
    const [only] = wanted.heads;
    return wanted.heads.length <= 1
      ? (only ?? "")
      : `${operation(weighting)} of ${wanted.heads.slice(0, -1).join(", ")} and ${wanted.heads.at(-1) ?? ""}`;
  }
  return `${operation(weighting)} of all ${heads} heads${wanted.layer === null ? "" : ` of layer ${wanted.layer}`}`;
}

export interface TextState {
  picture: ReadonlySignal<TextPicture | null>;
  trouble: Signal<string | null>;
  waiting: ReadonlySignal<boolean>;
}

export function readText(
  room: AttentionRoom,
  wanted: ReadonlySignal<Wanted>,
  inSight: ReadonlySignal<boolean>,
  signal: AbortSignal,
): TextState {
  const { store, data, client } = room;
  const picture = state<TextPicture | null>(null);
  const trouble = state<string | null>(null);
  const waiting = state(false);
  /** For a blend of a long prompt, the row that is requested; otherwise {}. Null until the cache is described. */
  const line = computed(() => {
    if ("heads" in wanted.value) return {};
    return store.facts.value && lineOf(store.facts.value.positions, store.destination.value ?? 0);
  });
  const wantedKey = computed(() => JSON.stringify([wanted.value, line.value])); // equal choices cause no new request
  let requests = 0;

  watch(signal, () => {
    if (!inSight.value) return;
    const weighting = store.weighting.value;
    void store.answersAgain.value;
    const key = data.key(wantedKey.value);
    untracked(() => load(wanted.peek(), weighting, key));
  });

  function load(chosen: Wanted, weighting: Weighting, key: string): void {
    const number = (requests += 1);
    const isCurrent = (): boolean => number === requests && !signal.aborted && data.key(wantedKey.peek()) === key;
    const put = (next: TextPicture | null): void => {
      if (!isCurrent()) return;
      picture.value = next;
      trouble.value = null;
      waiting.value = false;
    };
    if ("heads" in chosen && chosen.heads.length === 0) return put(null);
    const selection = data.key("");
    const kept = "heads" in chosen ? chosen.heads.map((head) => data.kept(data.key(head), weighting)) : [null];
    const keptMaps = kept.flatMap((attention) => attention ?? []);
    if ("heads" in chosen && keptMaps.length === kept.length)
      put(ofHeads(chosen.heads, keptMaps, weighting, selection));
    else waiting.value = true;
    const reply =
      "heads" in chosen ? readHeads(chosen.heads, weighting, selection) : readBlend(chosen, weighting, selection);
    reply.then(
      (next) => {
        if (next) put(next); // null if a newer request has replaced this one
      },
      (error: unknown) => {
        if (!isCurrent()) return;
        waiting.value = false;
        const selection = data.key("");
        if (isOutdated(error, store)) {
          if (picture.peek()?.selection !== selection) picture.value = null;
          return;
        }
        trouble.value = error instanceof Error ? error.message : String(error);
        picture.value = null; // otherwise the user would take the earlier picture for this one
      },
    );
  }

  function ofHeads(heads: string[], all: Attention[], weighting: Weighting, selection: string): TextPicture {
    const parts = all.map((attention, i) => {
      const values = attention.maps[weighting];
      if (!values) throw new Error(whyMissing(attention));
      return { head: heads[i] ?? "", attention, values };
    });
    const size = parts[0]?.attention.size ?? 0;
    const values = superpose(
      parts.map((part) => part.values),
      weighting,
    );
    const notes = [...new Set(parts.flatMap((part) => part.attention.notes))];
    return {
      name: nameOf({ heads }, weighting, heads.length),
      heads,
      selection,
      weighting,
      size,
      step: parts[0]?.attention.step ?? 1,
      layer: null,
      values,
      parts,
      notes,
      limit: limitOf(values),
    };
  }

  async function readHeads(heads: string[], weighting: Weighting, selection: string): Promise<TextPicture | null> {
    const all = await Promise.all(heads.map((head) => data.read(`text ${head}`, head, data.key(head), weighting)));
    const received = all.flatMap((attention) => attention ?? []);
    return received.length === all.length ? ofHeads(heads, received, weighting, selection) : null;
  }

  async function readBlend(
    chosen: { layer: number | null },
    weighting: Weighting,
    selection: string,
  ): Promise<TextPicture | null> {
    // For a long prompt, only one line is requested here. Its reply has the number of heads and the notes.
    const part = line.peek();
    if (!store.settled.peek() || part === null) return null;
    const ask = untracked(() => blend(store.shown, chosen.layer, weighting, part));
    const result = await client.latest("text blend", ask);
    if (!result) return null;
    const { positions, heads, notes } = result.reply;
    const values = unpacked(result.reply.part, result.buffers[0], frameOf(result.reply));
    return {
      name: nameOf(chosen, weighting, heads),
      heads: namesOf(chosen.layer),
      selection,
      weighting,
      size: positions,
      step: stepOf(positions, positions),
      layer: chosen.layer,
      values,
      parts: [],
      notes,
      limit: limitOf(values),
    };
  }

  function namesOf(layer: number | null): string[] {
    const { layers = 0, heads = 0 } = store.facts.peek() ?? {};
    const every = Array.from({ length: layers }, (_, l) => Array.from({ length: heads }, (_, h) => headName(l, h)));
    return every
      .flatMap((names, l) => (layer === null || l === layer ? names : []))
      .filter((name) => !store.isAbsent(name));
  }

  return { picture, trouble, waiting };
}
