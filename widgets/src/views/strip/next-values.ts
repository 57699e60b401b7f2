// The colours of the tokens if each position has its own target. They show what the head, neuron or layer in focus adds
// to each token; if nothing is in focus, they show how surprising each token was.
import { computed, type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { watch } from "../../base/lifetime";
import { Lru } from "../../base/lru";
import { limitOf } from "../../draw/colours";
import { isOutdated } from "../../state/loader";
import { headRow, layerRow, ofAnswer } from "../../state/next-tokens";
import { alongPositions, nextTokens } from "../../state/questions";
import type { Store } from "../../state/store";
import { type Client, float32 } from "../../wire/client";
import { componentsOf } from "../../wire/components";

export interface Added {
  /** "L23H3", "layer 23" */
  name: string;
  /** For each position, what the head, neuron or layer adds to the token after it. */
  values: Float32Array;
  /** The value that has the strongest colour. */
  limit: number;
}

/** The largest number of neurons and heads whose values are kept. */
const MOST_KEPT = 256;

/** What the head, neuron or layer in focus adds; null if nothing is in focus, or if its values are not known. */
export function addedToEach(store: Store, client: Client, signal: AbortSignal): ReadonlySignal<Added | null> {
  const single = new Lru<string, Float32Array>(MOST_KEPT);
  const arrived = state(0);
  const subject = computed((): { head: string } | { neuron: string } | { layer: number } | null => {
    const head = store.hoveredHead.value;
    if (head !== null) return { head };
    const neuron = store.hoveredNeuron.value;
    if (neuron !== null) return { neuron };
    const layer = store.hoveredLayer.value;
    if (layer !== null) return { layer };
    const pinned = store.heads.value.at(-1);
    if (pinned !== undefined) return { head: pinned };
    return store.chosenLayer.value === null ? null : { layer: store.chosenLayer.value };
  });
  const keyOf = (key: string, head: string): string => `${key} ${head}`;

  // Requests the values of a single head, if the values of all heads are too many for one reply.
  watch(signal, () => {
    const found = store.nextShown.value;
    const at = subject.value;
    if (!found || found.heads || !at || !("head" in at) || single.peek(keyOf(found.key, at.head))) return;
    const { head } = at;
    untracked(() => {
      client.latest("next-head", alongPositions(store.shown, head)).then(
        (result) => {
          if (!result || signal.aborted) return;
          single.set(keyOf(found.key, head), float32(result.buffers[0]));
          arrived.value += 1;
        },
        (error: unknown) => void isOutdated(error, store), // on failure, this head has no values to show
      );
    });
  });

  // Requests the values of all neurons in the ranking together, so that the user does not wait for each.
  watch(signal, () => {
    const found = store.nextShown.value;
    const listed = componentsOf(store.ranking.value === "neurons" ? store.neurons.value?.reply.components : undefined);
    const names = listed.filter(({ kind }) => kind === "neuron").map(({ label }) => label);
    if (!found || names.every((name) => single.peek(keyOf(found.key, name)))) return;
    const { positions } = found.reply;
    untracked(() => {
      const ask = nextTokens(store.shown);
      if (!ask) return;
      client.latest("next-neurons", { ...ask, neurons: names }).then(
        (result) => {
          if (!result || signal.aborted) return;
          const rows = float32(result.buffers[2]);
          names.forEach((name, i) =>
            single.set(keyOf(found.key, name), rows.subarray(i * positions, (i + 1) * positions)),
          );
          arrived.value += 1;
        },
        (error: unknown) => void isOutdated(error, store), // on failure, these neurons have no values to show
      );
    });
  });

  return computed(() => {
    void arrived.value;
    const found = store.nextShown.value;
    const at = subject.value;
    if (!found || !at) return null;
    const [name, values] =
      "neuron" in at
        ? [at.neuron, single.peek(keyOf(found.key, at.neuron)) ?? null]
        : "head" in at
          ? [at.head, headRow(found, at.head) ?? single.peek(keyOf(found.key, at.head)) ?? null]
          : [`layer ${at.layer}`, layerRow(found, at.layer)];
    if (!values?.some((value) => Number.isFinite(value))) return null;
    // The lower bound keeps values pale if they are tiny beside those of the layers.
    return { name, values, limit: Math.max(limitOf(ofAnswer(store, values)), limitOf(found.layers) / 1000) };
  });
}
