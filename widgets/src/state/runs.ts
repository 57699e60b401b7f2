// The part of the store for a comparison of the shown run with a second run: what the kernel has sent about both, and
// which of them the head map, the ranking and the badge show.
import { batch, computed, type ReadonlySignal, signal } from "@preact/signals-core";
import { coded, shown as safe } from "../base/legible";
import type { PairingReply } from "../wire/protocol.gen";
import type { Attribution } from "./attribution";
import { type Comparison, type Run, runNames, several } from "./comparison";
import type { Values } from "./selectable";
import { WhatIf } from "./what-if";

/** The lanes of the loader for comparisons: of heads, of layers, of the logit lens. */
export const COMPARED = { heads: "compared heads", layers: "compared layers", lens: "compared lens" } as const;
export type Chart = keyof typeof COMPARED;

/** The part of a store that a comparison depends on. */
interface Selected {
  readonly shownName: ReadonlySignal<string>;
  readonly prompt: ReadonlySignal<number | null>;
  readonly against: ReadonlySignal<Values["against"]>;
  readonly run: ReadonlySignal<Run>;
  readonly headRows: ReadonlySignal<Attribution | null>;
  readonly quantity: ReadonlySignal<string>;
  readonly problems: ReadonlySignal<ReadonlyMap<string, string>>;
  readonly awaited: ReadonlySignal<ReadonlySet<string>>;
  readonly late: ReadonlySignal<ReadonlySet<string>>;
  reasonNotDrawn(lane: string): string | null;
}

/** The lane of the loader for the pairs of positions. */
export const PAIRING = "pairing";

export class Runs {
  /** The last comparisons; null before the first one, and while no runs are compared. */
  readonly heads = signal<Comparison | null>(null);
  readonly layers = signal<Comparison | null>(null);
  readonly lens = signal<Comparison | null>(null);
  /** The last reply about the pairs of positions. */
  readonly lastPairing = signal<PairingReply | null>(null);

  /** How the positions of the two runs are paired; null if that is not known, or there is no comparison. */
  readonly pairing = computed(() =>
    this.store.against.value === null || this.store.problems.value.has(PAIRING) ? null : this.lastPairing.value,
  );

  /** How often the other cache of the comparison has changed, or was replaced by another cache of the same name. */
  readonly #renewals = signal(0);
  /** The other cache as it was last seen: its name, and its id and state ("" if there is no such cache). */
  #other: { name: string; state: string; id: string } | null = null;
  /** The name of the other cache, if it now belongs to another cache than when the comparison began. */
  readonly #replaced = signal<string | null>(null);

  /** Changes when a comparison has to be requested again although the selection is the same. */
  readonly otherKey = computed(() => `${this.#renewals.value} ${this.whatIf.made.value}`);

  /** A note for the badge, if B is another cache than before. */
  readonly renewalNotes = computed((): string[] => {
    const name = this.store.against.value?.cache ?? null;
    return name === null || name !== this.#replaced.value
      ? []
      : [`${coded(name)} (B) now holds another cache than before: all values of B are from the new one.`];
  });

  /**
   * Notes which cache has this name now, by its id and state. If these have changed, all comparisons are requested
   * again.
   */
  see(name: string | null, state: string): void {
    const before = this.#other;
    const isSame = name !== null && before?.name === name;
    const id = state.split(" ")[0] || (isSame ? before.id : ""); // a deleted cache has no id: keep its last one
    this.#other = name === null ? null : { name, state, id };
    batch(() => {
      if (!isSame) return void (this.#replaced.value = null);
      if (before.state === state) return;
      this.#renewals.value += 1;
      if (id !== before.id && before.id !== "") this.#replaced.value = name;
    });
  }
  /** The run without some heads, if the shown run is compared with one. */
  readonly whatIf = new WhatIf();

  constructor(readonly store: Selected) {}

  /** The names of A and B: "as cached" and "without L23H3 (zeroed)"; null if no runs are compared. */
  readonly names = computed<[string, string] | null>(() => {
    const { shownName, prompt, against } = this.store;
    if (against.value === null) return null;
    const [first, second] = runNames(shownName.value, prompt.value, against.value);
    const most = against.value.without?.length ? 60 : 30;
    return [safe(first, most), safe(second, most)];
  });

  /**
   * For each paired position of the first run, its position in the second run. Null if positions with the same index
   * are paired, or if no positions are paired.
   */
  readonly beside = computed<ReadonlyMap<number, number> | null>(() => {
    const pairs = this.pairing.value?.pairs ?? null;
    return pairs && new Map(pairs.map(({ first, second }) => [first, second]));
  });

  /** Whether the two runs cannot be compared position by position until they are aligned. */
  readonly areUnaligned = computed(() => this.pairing.value?.how === "none");

  /** The run that the rows belong to, or the difference; null if no runs are compared, or not yet. */
  readonly shown = computed<Run | null>(() => {
    const { against, problems, run } = this.store;
    const isCompared = this.heads.value !== null || problems.value.has(COMPARED.heads);
    return against.value !== null && isCompared ? run.value : null;
  });

  /** Whether new rows of map, ranking and badge are awaited. The rows on screen belong to an earlier selection. */
  readonly areAwaited = computed(() => this.#areIn(this.store.awaited.value));
  /** Whether the new rows are awaited for longer than a moment. */
  readonly areLate = computed(() => this.#areIn(this.store.late.value));
  readonly #areIn = (lanes: ReadonlySet<string>): boolean =>
    lanes.has("heads") || (this.shown.value !== null && lanes.has(COMPARED.heads));

  /**
   * The rows of map, ranking and badge: of one run, or of the difference. Until new rows come, the last ones stay.
   * After a failure there are none.
   */
  readonly rows = computed<Attribution | null>(() => {
    const run = this.shown.value ?? "first";
    return run === "first" ? this.store.headRows.value : (this.heads.value?.[run] ?? null);
  });

  /** "logit difference", or for the difference of two runs "difference of the logit differences". */
  readonly quantity = computed(() => {
    const quantity = this.store.quantity.value;
    return this.shown.value === "difference" ? `difference of the ${several(quantity)}` : quantity;
  });

  /** The difference, whose notes are those of the comparison. */
  readonly notes = computed(() => (this.store.against.value === null ? null : (this.heads.value?.difference ?? null)));

  /**
   * The comparison of a chart, if there is one. The charts of layers and of the lens draw it beside the rows of the
   * shown run, so it must be of the same selection as these.
   */
  of(chart: Chart): Comparison | null {
    const { against, awaited, problems } = this.store;
    const isOther = chart !== "heads" && awaited.value.has(chart) !== awaited.value.has(COMPARED[chart]);
    return against.value === null || problems.value.has(COMPARED[chart]) || isOther ? null : this[chart].value;
  }

  /**
   * Why a chart has no second run; null if it has one, or needs none. A reason that is shown for the heads is not
   * repeated: the other charts then show the first run.
   */
  reasonNotDrawn(chart: Chart): string | null {
    if (this.store.against.value === null) return null;
    const refused = this.whatIf.refusal.value;
    if (refused !== null) return chart === "heads" ? refused : null;
    const said = this.store.problems.value.get(COMPARED[chart]) ?? null;
    return chart !== "heads" && said === this.store.problems.value.get(COMPARED.heads) ? null : said;
  }

  /** Why map, ranking and badge have no rows; null if they have rows. */
  whyNoRows(): string | null {
    return (
      (this.store.run.value === "first" ? null : this.reasonNotDrawn("heads")) ?? this.store.reasonNotDrawn("heads")
    );
  }
}
