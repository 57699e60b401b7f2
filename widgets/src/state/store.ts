// The one selection store of a panel. What can be selected, and what of it Python shares, stands in selectable.ts.
// Everything else lives in this view only. Views read and write here, and never message each other.
import { batch, computed, type ReadonlySignal, signal } from "@preact/signals-core";
import { headName, parseHead, subscript, visible } from "../base/format";
import type { Sentence } from "../base/sentence";
import { limitOf, type Theme } from "../draw/colours";
import type {
  AttributionReply,
  CacheFacts,
  CacheRef,
  NeuronsReply,
  ScoresReply,
  TokenLabel,
} from "../wire/protocol.gen";
import { chosenOf, type Selected, SelectionSignals, toldOf, type Values } from "./selectable";
import { isSet, type Position, quantity } from "./target";
import { Undo } from "./undo";

export type Norm = Values["norm"];
export type Ranking = Values["ranking"];
export type Weighting = Values["weighting"];
export type Presentation = Values["presentation"];
export type Tab = Values["tab"];
export type Score = ScoresReply["score"];
/** The loader's lanes whose refusals stand in their own place, and are no failure of the panel. */
export const NEURONS = "neurons";
export const SCORES = "scores";
export const IN_PLACE: ReadonlySet<string> = new Set(["heads", "layers", "lens", "target", NEURONS, SCORES]);
/** A decomposition as it came, with its numbers; in the mean over prompts also their spread. */
export interface Attribution {
  reply: AttributionReply;
  rows: Float32Array;
  /** The standard deviation over prompts. */
  std: Float32Array | null;
  /** [component, prompt], row-major; null where there are too many to send. */
  perPrompt: Float32Array | null;
  /** The constant of each prompt. */
  constants: Float32Array | null;
}
/** A score for each head, as it came. */
export interface Scores {
  reply: ScoresReply;
  values: Float32Array;
}
/** The strongest neurons as they came, with their numbers and the layer that was asked for (null: all). */
export interface Neurons {
  reply: NeuronsReply;
  values: Float32Array;
  layer: number | null;
}

/** What has become of the cache in view, in place of its facts: words, and what to do about it. */
export interface Standing {
  words: string;
  act?: { label: string; run: () => void };
}

/** What the place of a view adds to its header. */
export interface Around {
  /** The list of caches that is folded away behind the name of the one in view. */
  list: { id: string; open: ReadonlySignal<boolean>; count: ReadonlySignal<string>; toggle: () => void };
  /** Opens the view in a place of its own; left out where the host has none. */
  enlarge?: () => void;
}

export class Store extends SelectionSignals {
  /** Whether each attention picture has a colour range of its own, or all share one. */
  readonly ownRange = signal(false);
  /**
   * What stands for the cells of a block, where a prompt is long: the one that is farthest from zero, or their mean.
   */
  readonly pool = signal<"peak" | "mean">("peak");

  /** Which cache of a kernel is in view; null in an inline panel, which has one. */
  readonly ref = signal<CacheRef | null>(null);
  readonly standing = signal<Standing | null>(null);
  readonly around = signal<Around | null>(null);
  /** Whether this is a saved picture: nobody can be asked whether its figures are true. */
  readonly isSaved = signal(false);
  /** Counts keys that went to another head: strip, sentence and map are to be in view. */
  readonly sought = signal(0);
  /** Counts refusals that say the cache in view is not what it was. */
  readonly outdated = signal(0);
  /** Counts how often Python described the cache otherwise than before. */
  readonly described = signal(0);
  /** Changes whenever what is read is another cache, another state of it, or its padding counts otherwise. */
  readonly source = computed(
    () =>
      `${this.ref.value?.id ?? ""} ${this.ref.value?.state ?? ""} ${this.padding.value} ${this.ref.value ? "" : this.cacheName.value} ${this.described.value || ""}`,
  );

  readonly #undo = new Undo(this);
  readonly theme = signal<Theme>("light");
  readonly hoveredHead = signal<string | null>(null);
  readonly hoveredToken = signal<number | null>(null);
  readonly hoveredLayer = signal<number | null>(null);
  /** The head in the preview slot: the last one hovered. Kept when the pointer leaves, dropped by Esc. */
  readonly preview = signal<string | null>(null);
  readonly sentence = signal<Sentence | null>(null);

  readonly facts = signal<CacheFacts | null>(null);
  readonly tokens = signal<TokenLabel[]>([]);
  readonly lens = signal<Attribution | null>(null);
  readonly layerRows = signal<Attribution | null>(null);
  readonly headRows = signal<Attribution | null>(null);
  readonly neurons = signal<Neurons | null>(null);
  readonly scores = signal<Scores | null>(null);
  /** How many of the loader's requests are under way: the pictures on screen are yesterday's. */
  readonly computing = signal(0);
  /** The same for the neurons and for the head scores, which only their own place shows. */
  readonly computingNeurons = signal(0);
  readonly computingScores = signal(0);
  /** Lanes of the loader whose last answer was a refusal, with its sentence. */
  readonly problems = signal<ReadonlyMap<string, string>>(new Map());

  /** The last real token, where that is one position: of the prompt in view, or of all. */
  readonly lastPosition: ReadonlySignal<number | null> = computed(() => {
    const facts = this.facts.value;
    const last = (facts?.last ?? []).map((at) => (facts && this.padding.value === "none" ? facts.positions - 1 : at));
    const prompt = this.prompt.value;
    if (prompt !== null) return last[prompt] ?? null;
    return last.every((p) => p === last[0]) ? (last[0] ?? null) : null;
  });
  /** Python names the last position where it can; a lock is any other one. */
  readonly locked = computed(() =>
    this.position.value === "last" || this.position.value === this.lastPosition.value ? null : this.position.value,
  );
  /** What requests and selections carry. */
  readonly chosenPosition = computed<Position>(() => this.locked.value ?? "last");
  readonly chosen = chosenOf(this, this.chosenPosition);
  /** All that is selected, as the kernel is told; each is read when it is looked at. */
  readonly shown: Selected = toldOf(this.chosen);
  /** The position that is read. */
  readonly destination = computed(() => this.locked.value ?? this.lastPosition.value);
  readonly isMean = computed(() => this.prompt.value === null && (this.facts.value?.prompts ?? 1) > 1);
  /** "logit difference", "mean logit", … */
  readonly quantity = computed(
    () => (this.isMean.value ? "mean " : "") + quantity(this.target.value, this.prompt.value),
  );
  readonly activeLayer = computed(() => {
    const head = this.hoveredHead.value;
    return head === null ? this.hoveredLayer.value : (parseHead(head)?.layer ?? null);
  });

  /** The tokens that stand more than once in what is in view, as they are written. */
  readonly #repeated = computed(() => {
    const [once, more] = [new Set<string>(), new Set<string>()];
    this.tokens.value.forEach((_, position) => {
      const text = this.tokenText(position);
      (once.has(text) ? more : once).add(text);
    });
    return more;
  });

  /** The layer whose neurons are in view. */
  readonly chosenLayer = computed(() => (this.ranking.value === "neurons" ? this.layer.value : null));
  /** What the figures on screen come with, each sentence once. */
  readonly notes: ReadonlySignal<string[]> = computed(() => {
    const neurons = this.ranking.value === "neurons" ? this.neurons.value : null;
    const scores = this.score.value === null ? null : this.scores.value;
    const replies = [this.headRows.value, this.layerRows.value, this.lens.value, neurons, scores];
    return [...new Set(replies.flatMap((data) => data?.reply.notes ?? []))];
  });

  /** Whether a target is chosen, or it is known that there is none: attention can be seen without one. */
  readonly settled = computed(() => isSet(this.target.value) || this.problems.value.has("target"));

  /** Why a view is not drawn: what was refused, or that there is no target; null where it is. */
  why(lane: string): string | null {
    const problems = this.problems.value;
    if (!isSet(this.target.value)) return problems.get("target") ?? null;
    return problems.get(lane) ?? null;
  }

  /** The head that adds or takes away most: what heads' figures are written beside, wherever they stand. */
  readonly largest = computed(() => {
    const { layers = 0, heads = 0 } = this.facts.value ?? {};
    return limitOf(this.headRows.value?.rows.subarray(0, layers * heads) ?? []);
  });

  /** A head's contribution, if it is known. */
  headValue(name: string): number | null {
    const value = this.#headRow(name);
    return value === undefined || Number.isNaN(value) ? null : value;
  }

  /**
   * Whether this layer is known to have no attention heads. A head that was not cached may be there, and be looked at.
   */
  isAbsent(name: string): boolean {
    if (!Number.isNaN(this.#headRow(name))) return false;
    const { missing = [], refusal = null } = this.headRows.value?.reply ?? {};
    const canBeSeen = refusal !== null && !this.facts.value?.missing.includes("attn.hook_pattern");
    return !missing.includes("heads") && !canBeSeen;
  }

  #headRow(name: string): number | undefined {
    const facts = this.facts.value;
    const head = parseHead(name);
    if (!facts || !head || head.layer >= facts.layers || head.head >= facts.heads) return undefined;
    return this.headRows.value?.rows[head.layer * facts.heads + head.head];
  }

  /** How the token at a position is written; "∗" where prompts differ. */
  tokenText(position: number): string {
    const token = this.tokens.value[position];
    if (!token) return String(position);
    return token.text === "" && (token.varies?.length ?? 0) > 0 ? "∗" : visible(token.text);
  }

  /** The position as a subscript, where the same token stands elsewhere, too; else nothing. */
  tokenMark(position: number): string {
    return this.#repeated.value.has(this.tokenText(position)) ? subscript(position) : "";
  }

  /** A token that can be distinguished from all others: "·Mary", "·John₁₀". What axes and sentences call it. */
  tokenName(position: number): string {
    if (this.facts.value?.has_tokens === false) return `#${position}`; // a bare number beside figures would be taken for one
    return this.tokenText(position) + this.tokenMark(position);
  }

  hover(head: string | null): void {
    batch(() => {
      this.hoveredHead.value = head;
      if (head !== null && !this.isAbsent(head)) this.preview.value = head;
    });
  }

  togglePin(head: string): void {
    if (this.isAbsent(head)) return;
    const heads = this.heads.value;
    this.heads.value = heads.includes(head) ? heads.filter((h) => h !== head) : [...heads, head];
  }

  /** The next head after the one in the preview slot, from the strongest to the weakest; −1: the one before. */
  step(by: 1 | -1): void {
    const count = (this.facts.value?.layers ?? 0) * (this.facts.value?.heads ?? 0);
    const rows = this.headRows.value?.rows.subarray(0, count) ?? new Float32Array(0);
    const heads = this.facts.value?.heads ?? 1;
    const known = [...rows.keys()].filter((i) => !Number.isNaN(rows[i]));
    known.sort((a, b) => Math.abs(rows[b] ?? 0) - Math.abs(rows[a] ?? 0));
    const names = known.map((i) => headName(Math.floor(i / heads), i % heads));
    if (names.length === 0) return;
    const at = names.indexOf(this.preview.value ?? "");
    const to = at === -1 ? (by === 1 ? 0 : names.length - 1) : (at + by + names.length) % names.length;
    this.hover(names[to] ?? null);
    this.sought.value += 1;
  }

  togglePosition(position: number): void {
    this.position.value = position === this.locked.value || position === this.lastPosition.value ? "last" : position;
  }

  /**
   * Count what was treated as padding as real, or again: leave it out. Who stood at the last token stands there again.
   */
  togglePadding(): void {
    batch(() => {
      if (this.locked.value === null) this.position.value = "last";
      this.padding.value = this.padding.value === "found" ? "none" : "found";
    });
  }

  /** A layer's neurons, or again: all layers'. */
  toggleLayer(layer: number): void {
    batch(() => {
      this.layer.value = layer === this.chosenLayer.value ? null : layer;
      this.ranking.value = "neurons";
    });
  }

  /**
   * Esc: pins, preview and hover go; the locked token too when the focus is in the token strip. Where a layer is chosen
   * (its chart and the ranking), the layer goes first.
   */
  escape(inTokens: boolean, byLayer = false): void {
    const [layer, position] = [this.chosenLayer.value, this.locked.value];
    if (byLayer && layer !== null) {
      this.layer.value = null;
      return this.#undo.keep({ layer });
    }
    if (inTokens && position !== null) {
      this.position.value = "last";
      return this.#undo.keep({ position });
    }
    const [heads, preview] = [this.heads.value, this.preview.value];
    batch(() => {
      if (this.heads.value.length > 0) this.heads.value = [];
      this.preview.value = null;
      this.hoveredHead.value = null;
      this.hoveredToken.value = null;
      this.hoveredLayer.value = null;
      this.sentence.value = null;
    });
    if (heads.length > 0 || preview !== null) this.#undo.keep({ heads, preview });
  }

  /** What the last Esc let go comes back; again: what the one before did. */
  undo(): void {
    this.#undo.back();
  }
}
