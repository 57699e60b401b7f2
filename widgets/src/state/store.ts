// The one store of a panel. selectable.ts defines what can be selected, and which of these values are shared with
// Python. All other values belong to this panel only. Views read and write the store, and never send messages to each
// other.
import { batch, computed, type ReadonlySignal, signal } from "@preact/signals-core";
import { headName, parseHead, subscript, visible } from "../base/format";
import type { Sentence } from "../base/sentence";
import { limitOf, type Theme } from "../draw/colours";
import type { CacheFacts, CacheRef, InnerFacts, NeuronsReply, ScoresReply, TokenLabel } from "../wire/protocol.gen";
import type { Attribution } from "./attribution";
import { type Effect, Effects, valuesOf } from "./effects";
import { type FeatureTokens, featureKey, saeState } from "./feature-tokens";
import { type NextTokens, nextKey } from "./next-tokens";
import { baseOf, pathOf } from "./path";
import type { Reading, Spot } from "./reading";
import { COMPARED, PAIRING, Runs } from "./runs";
import { promptKey, type SegmentsFound } from "./segments";
import { chosenOf, type Selected, SelectionSignals, type Values, wireSelection } from "./selectable";
import { asksEach, destinationOf, isInside, isNext, isSet, layerOf, type Position, quantity } from "./target";
import { Undo } from "./undo";
import type { Warned } from "./warnings";

export type { Attribution };
export type Norm = Values["norm"];
export type Transport = Values["transport"];
export type Ranking = Values["ranking"];
export type Weighting = Values["weighting"];
export type Presentation = Values["presentation"];
export type Tab = Values["tab"];
export type Score = ScoresReply["score"];
// Names of lanes of the loader.
export const NEURONS = "neurons";
export const SCORES = "scores";
export const FEEDS = "feeds";
export const NEXT = "next-tokens";
export const SEGMENTS = "segments";
export const FEATURE = "feature-tokens";
/** The lanes whose failures are shown in the place of their picture, not as a failure of the panel. */
export const IN_PLACE: ReadonlySet<string> = new Set([
  "heads",
  "layers",
  "lens",
  "target",
  NEURONS,
  SCORES,
  FEEDS,
  NEXT,
  SEGMENTS,
  FEATURE,
  ...Object.values(COMPARED),
  PAIRING,
]);
/** A reply with a score for each head. */
export interface Scores {
  reply: ScoresReply;
  values: Float32Array;
}
/** A reply with the strongest neurons, their values, and the requested layer (null: all). */
export interface Neurons {
  reply: NeuronsReply;
  values: Float32Array;
  layer: number | null;
}

/** The status of a cache that has changed or is gone: shown instead of its facts, with an action if there is one. */
export interface StatusNotice {
  words: string;
  /** Whether the kernel still reads the cache in view. Otherwise the values are from an earlier picture. */
  isLive?: boolean;
  act?: { label: string; run: () => void };
}

/** What the host of a view adds to its header. */
export interface HostControls {
  /** The list of caches. A click on the name of the current cache opens it. */
  list: { id: string; open: ReadonlySignal<boolean>; count: ReadonlySignal<string>; toggle: () => void };
  /** Opens the view in its own tab; absent if the host has no tabs. */
  enlarge?: () => void;
}

export class Store extends SelectionSignals {
  /** Whether each attention picture has its own colour range; otherwise all share one. */
  readonly ownRange = signal(false);
  /** The value of a block of cells in a down-sampled map: the value farthest from zero, or the mean. */
  readonly pool = signal<"peak" | "mean">("peak");

  /** The current cache of the kernel; null in an inline panel, which has only one. */
  readonly ref = signal<CacheRef | null>(null);
  readonly statusNotice = signal<StatusNotice | null>(null);
  /** Whether the variable that the view is named after now holds another cache than the one in view. */
  readonly isEarlier = signal(false);
  /** The name of the cache in sentences: "corrupted", or "earlier corrupted" if the variable holds another cache. */
  readonly shownName = computed(() => {
    const name = this.cacheName.value || (this.facts.value?.name ?? "");
    return this.isEarlier.value && name !== "" ? `earlier ${name}` : name;
  });
  readonly hostControls = signal<HostControls | null>(null);
  /** Whether this is a saved picture, which has no kernel. */
  readonly isSaved = signal(false);
  /** How often a key press moved to another head. Each time, strip, sentence and map are scrolled into view. */
  readonly headMoves = signal(0);
  /** The tab that was open before the first question of the trail; null if none was asked in this view. */
  tabBeforeWhy: Tab | null = null;
  /** How often a target was added to the trail. Each time, the tab "why" is scrolled into view. */
  readonly trailAdditions = signal(0);
  /** How many failures said that the current cache has changed or is gone. */
  readonly outdated = signal(0);
  /** How often Python has sent another description of the cache. */
  readonly described = signal(0);
  /** When the kernel last listed its caches. The description, which names the SAEs, is then requested again. */
  readonly relisted = signal(0);
  /** How often the kernel, with the same cache, has answered again after requests were lost. Views then ask again. */
  readonly answersAgain = signal(0);
  /** A key of the data that replies are computed from: the cache, its state and description, and the padding. */
  readonly dataKey = computed(() => {
    const ref = this.ref.value;
    const name = ref ? "" : this.cacheName.value;
    return [ref?.id ?? "", ref?.state ?? "", this.padding.value, name, this.described.value || ""].join(" ");
  });

  readonly #undo = new Undo(this);
  readonly theme = signal<Theme>("light");
  readonly hoveredHead = signal<string | null>(null);
  readonly hoveredToken = signal<number | null>(null);
  readonly hoveredLayer = signal<number | null>(null);
  readonly hoveredNeuron = signal<string | null>(null);
  /** The head in the preview slot: the last one hovered. It stays when the pointer leaves; Esc clears it. */
  readonly preview = signal<string | null>(null);
  readonly sentence = signal<Sentence | null>(null);

  readonly facts = signal<CacheFacts | null>(null);
  readonly tokens = signal<TokenLabel[]>([]);
  readonly lens = signal<Attribution | null>(null);
  readonly layerRows = signal<Attribution | null>(null);
  readonly headRows = signal<Attribution | null>(null);
  readonly neurons = signal<Neurons | null>(null);
  readonly scores = signal<Scores | null>(null);
  readonly nextTokens = signal<NextTokens | null>(null);
  /** The segments of a prompt, and the rules that find several segments in it. */
  readonly segmentsFound = signal<SegmentsFound | null>(null);
  /** The first positions of the segments that are unfolded in the token strip. */
  readonly unfolded = signal<ReadonlySet<number>>(new Set());
  readonly featureTokens = signal<FeatureTokens | null>(null);
  /** Whether the tokens show what the head in focus reads, even if each position has its own target. */
  readonly stripReads = signal(false);
  /** What each head feeds to one input of a head, and which input that is. */
  readonly feeding = signal<{ feeds: Values["feeds"]; rows: Attribution } | null>(null);
  /** Facts about targets inside the model. The keys are from `innerFactsKey`. */
  readonly inner = signal<ReadonlyMap<string, InnerFacts>>(new Map());
  /** The attention cell, or the coloured token of the strip, that the pointer was on last. "why here?" is about it. */
  readonly spot = signal<Spot | null>(null);
  /** What the head in focus reads at the destination. */
  readonly reading = signal<Reading | null>(null);
  /**
   * The lanes of the loader that wait for the reply to the present selection. Until it comes, the last picture stays,
   * but no number of it is shown or said.
   */
  readonly awaited = signal<ReadonlySet<string>>(new Set());
  /** Whether some lane waits for longer than a moment. */
  readonly isLate = signal(false);
  /** The lanes that wait for longer than a moment. Then texts that have numbers of an earlier selection are hidden. */
  readonly late = computed<ReadonlySet<string>>(() => (this.isLate.value ? this.awaited.value : new Set()));
  /** How many requests of the loader are running; meanwhile the pictures on screen are out of date. */
  readonly computing = signal(0);
  /** How many requests for neurons are running; meanwhile only the picture of the neurons is out of date. */
  readonly computingNeurons = signal(0);
  /** How many requests for scores, next tokens, features or what feeds a head are running. */
  readonly computingScores = signal(0);
  /** The lanes of the loader whose last request failed, with the message. */
  readonly problems = signal<ReadonlyMap<string, string>>(new Map());

  /** The position of the last real token: of the current prompt, or of all prompts if they have the same. */
  readonly endPosition: ReadonlySignal<number | null> = computed(() => {
    const facts = this.facts.value;
    const last = (facts?.last ?? []).map((at) => (facts && this.padding.value === "none" ? facts.positions - 1 : at));
    const prompt = this.prompt.value;
    if (prompt !== null) return last[prompt] ?? null;
    return last.every((p) => p === last[0]) ? (last[0] ?? null) : null;
  });
  /** The last position at which the target is read. The last token has no next token. */
  readonly lastPosition = computed(() => {
    const end = this.endPosition.value;
    return end !== null && isNext(this.target.value) ? Math.max(end - 1, 0) : end;
  });
  /** The selected position; null if it is the last one. */
  readonly locked = computed(() =>
    this.position.value === "last" || this.position.value === this.lastPosition.value ? null : this.position.value,
  );
  /**
   * The selected position in the form of a request: an index or "last". If each position has its own target, the last
   * position is the one before the last token. It is then sent as an index, unless it differs between prompts.
   */
  readonly chosenPosition = computed<Position>(() => {
    const last = isNext(this.target.value) ? this.lastPosition.value : null;
    return this.locked.value ?? last ?? "last";
  });
  /** The layers whose MLP reads the stream before the layer, as their attention does. */
  readonly parallel = computed(() => this.facts.value?.parallel ?? []);
  /** The first layer whose attention comes after the point at which the target is read. */
  readonly targetLayer = computed(() => layerOf(this.target.value, this.parallel.value));
  /** Why the plain lens is shown, although a lens was given; null if there is no such reason. */
  readonly whyPlain = computed(() => {
    if (this.against.value !== null) return "Two runs are compared by the plain lens.";
    return isInside(this.target.value) ? "This target is read before the end of the stream, so no lens maps it." : null;
  });
  /** How the logit lens reads the stream: "transported" only if a lens was given, is chosen, and can be used. */
  readonly lensTransport = computed<Transport>(() =>
    this.facts.value?.lens && this.whyPlain.value === null ? this.transport.value : "plain",
  );
  readonly chosen = chosenOf(this, { position: this.chosenPosition, transport: this.lensTransport });
  /** The selection, with the field names of the wire. Reading a property reads only its own signal. */
  readonly shown: Selected = wireSelection(this.chosen);
  /** The steps of the trail, and the index of the current one. */
  readonly path = computed(() => pathOf(this.shown));
  /** The last logits in the trail, up to the current step; no target if there are none. */
  readonly base = computed(() => baseOf(this.shown).target);
  /** Whether each position has its own target, and the tokens show what is added to each of them. */
  readonly asksEach = computed(() => asksEach(this.target.value));
  /** How each token was predicted; null until the reply arrives, or if there is one target for all positions. */
  readonly nextShown = computed(() => {
    const found = this.nextTokens.value;
    return this.asksEach.value && found?.key === nextKey(this) ? found : null;
  });
  /** What is known of the segments of the shown prompt; null while it is not known, and in the mean over prompts. */
  readonly segmentsKnown = computed(() => {
    const found = this.segmentsFound.value;
    return found?.key === promptKey(this.dataKey.value, this.prompt.value) ? found.reply : null;
  });
  /** The segments that the token strip folds; null if it folds none. */
  readonly segmentsShown = computed(() => {
    const found = this.segments.value === null ? null : this.segmentsKnown.value;
    return found && found.segments.length > 0 && !this.problems.value.has(SEGMENTS) ? found.segments : null;
  });
  /** Whether a feature is chosen, and its tab is open. The tokens are then coloured by its activations. */
  readonly hasFeature = computed(() => this.tab.value === "features" && this.feature.value !== null);
  /** The activations of the chosen feature, which colour the tokens; null if they are not known (yet). */
  readonly featureShown = computed(() => {
    const found = this.hasFeature.value ? this.featureTokens.value : null;
    const state = saeState(this.sae.value, this.facts.value?.saes);
    return found?.key === featureKey(this, { ...this.shown, state }) ? found : null;
  });
  /** The destination position; null if it differs between prompts. */
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

  /** The texts that occur more than once among the current tokens. */
  readonly #repeated = computed(() => {
    const [once, repeated] = [new Set<string>(), new Set<string>()];
    this.tokens.value.forEach((_, position) => {
      const text = this.tokenText(position);
      (once.has(text) ? repeated : once).add(text);
    });
    return repeated;
  });

  /** The layer whose neurons are shown. */
  readonly chosenLayer = computed(() => (this.ranking.value === "neurons" ? this.layer.value : null));
  /** The notes of the replies on screen, each once. */
  readonly notes: ReadonlySignal<string[]> = computed(() => {
    const neurons = this.ranking.value === "neurons" ? this.neurons.value : null;
    const scores = this.score.value === null ? null : this.scores.value;
    const replies = [
      this.runs.notes.value,
      this.headRows.value,
      this.layerRows.value,
      this.lens.value,
      neurons,
      scores,
    ];
    const caused = this.effectShown.value === "direct" ? null : this.effects.heads.found.value;
    const notes = [caused, ...replies].flatMap((data) => data?.reply.notes ?? []);
    return [...new Set([...this.runs.renewalNotes.value, ...this.runs.whatIf.notes.value, ...notes])];
  });

  /** The comparison with another run. */
  readonly runs = new Runs(this);

  /** The warnings of the replies on screen. In a comparison, some charts show both runs, whichever the map shows. */
  readonly warnings: ReadonlySignal<Warned[]> = computed(() => {
    const { heads, layers, lens } = this.runs;
    const compared = this.against.value === null ? [] : [heads.value, layers.value, lens.value];
    const shown = [this.headRows.value, this.layerRows.value, this.lens.value, ...compared.map((both) => both?.first)];
    const first = new Set(shown.flatMap((data) => data?.reply.warnings ?? []));
    const second = new Set(compared.flatMap((both) => both?.second.reply.warnings ?? []));
    const areCompared = compared.some((both) => both !== null);
    return [...new Set([...first, ...second])].map((kind) => ({
      kind,
      run: !areCompared || (first.has(kind) && second.has(kind)) ? null : first.has(kind) ? "A" : "B",
    }));
  });

  /** What is measured in runs of the model: of each head, and of the stream at each layer and position. */
  readonly effects = { heads: new Effects("heads"), stream: new Effects("stream") };
  /** The effect of the heads in view: "direct" if a second run, a score or what feeds a head is shown. */
  readonly effectShown = computed<Effect>(() => {
    const isOne = (this.runs.shown.value ?? "first") === "first";
    return isOne && this.score.value === null && this.feeds.value === null ? this.effect.value : "direct";
  });

  /** What the ranking shows of each head, [layer × head]: an effect, or the rows of a run. */
  readonly headValues = computed<Float32Array | null>(() => {
    const { layers = 0, heads = 0 } = this.facts.value ?? {};
    const effect = this.effectShown.value;
    const found = this.effects.heads.found.value;
    if (effect !== "direct") return found && valuesOf(found, effect);
    return this.runs.rows.value?.rows.subarray(0, layers * heads) ?? null;
  });

  /** Whether a target is chosen, or it is known that there is none. (Attention can be shown without a target.) */
  readonly settled = computed(() => isSet(this.target.value) || this.problems.value.has("target"));

  /** Why a view is not drawn: a failure, or no target; null if it is drawn. */
  reasonNotDrawn(lane: string): string | null {
    const problems = this.problems.value;
    if (!isSet(this.target.value)) return problems.get("target") ?? null;
    return problems.get(lane) ?? null;
  }

  /** The largest absolute contribution of a head. It decides the decimals of all heads' contributions. */
  readonly largest = computed(() => {
    const { layers = 0, heads = 0 } = this.facts.value ?? {};
    return limitOf(this.headRows.value?.rows.subarray(0, layers * heads) ?? []);
  });

  /** A head's contribution, if it is known and the head writes before the target is read. */
  headValue(name: string): number | null {
    if ((parseHead(name)?.layer ?? 0) >= this.targetLayer.value) return null;
    const value = this.#headRow(name);
    return value === undefined || Number.isNaN(value) ? null : value;
  }

  /** Whether the layer of this head has no attention. A head that exists may also have no value. */
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

  /** The text of the token at a position; "∗" if prompts differ. */
  tokenText(position: number): string {
    const token = this.tokens.value[position];
    if (!token) return String(position);
    return token.text === "" && (token.varies?.length ?? 0) > 0 ? "∗" : visible(token.text);
  }

  /** The position as a subscript; empty if the token occurs only once. */
  tokenMark(position: number): string {
    return this.#repeated.value.has(this.tokenText(position)) ? subscript(position) : "";
  }

  /** A token's unique name on axes and in sentences: "·Mary", "·John₁₀". */
  tokenName(position: number): string {
    // A bare number next to values would be read as a value.
    if (this.facts.value?.has_tokens === false) return `#${position}`;
    return this.tokenText(position) + this.tokenMark(position);
  }

  hover(head: string | null): void {
    batch(() => {
      this.hoveredHead.value = head;
      if (head !== null && !this.isAbsent(head)) this.preview.value = head;
    });
  }

  /** Ends the hover. If the pointer only crossed the last head, the preview shows the `meant` head again. */
  endHover(meant: string | null): void {
    batch(() => {
      const isShown = this.preview.value !== null && this.preview.value === this.hoveredHead.value;
      if (meant !== null && isShown) this.hover(meant);
      this.hover(null);
    });
  }

  togglePin(head: string): void {
    if (this.isAbsent(head)) return;
    const heads = this.heads.value;
    this.heads.value = heads.includes(head) ? heads.filter((h) => h !== head) : [...heads, head];
  }

  /** Moves the preview to the next weaker head (1) or the next stronger one (−1). */
  step(by: 1 | -1): void {
    const rows = this.headValues.value ?? new Float32Array(0);
    const heads = this.facts.value?.heads ?? 1;
    const known = [...rows.keys()].filter((i) => !Number.isNaN(rows[i]));
    known.sort((a, b) => Math.abs(rows[b] ?? 0) - Math.abs(rows[a] ?? 0));
    const names = known.map((i) => headName(Math.floor(i / heads), i % heads));
    if (names.length === 0) return;
    const at = names.indexOf(this.preview.value ?? "");
    const to = at === -1 ? (by === 1 ? 0 : names.length - 1) : (at + by + names.length) % names.length;
    this.hover(names[to] ?? null);
    this.headMoves.value += 1;
  }

  togglePosition(position: number): void {
    this.position.value = position === this.locked.value || position === this.lastPosition.value ? "last" : position;
  }

  /** Counts padding as real tokens, or ignores it again. A selected last token stays the last token. */
  togglePadding(): void {
    batch(() => {
      if (this.locked.value === null) this.position.value = "last";
      this.padding.value = this.padding.value === "found" ? "none" : "found";
    });
  }

  /** Ranks the neurons of this layer. If this layer is already chosen, ranks the neurons of all layers. */
  toggleLayer(layer: number): void {
    batch(() => {
      this.layer.value = layer === this.chosenLayer.value ? null : layer;
      this.ranking.value = "neurons";
    });
  }

  /**
   * Handles Esc. With the focus in the chart of layers or the ranking (`byLayer`), it clears the chosen layer. With the
   * focus in the token strip (`inTokens`), it clears the selected position, unless this position is the destination of
   * an attention score. If there is nothing of this kind to clear, it clears pins, preview, hover and the sentence.
   */
  escape(inTokens: boolean, byLayer = false): void {
    const [layer, position] = [this.chosenLayer.value, this.locked.value];
    if (byLayer && layer !== null) {
      this.layer.value = null;
      return this.#undo.keep({ layer });
    }
    if (inTokens && position !== null && destinationOf(this.target.value) === null) {
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
      this.hoveredNeuron.value = null;
      this.sentence.value = null;
    });
    if (heads.length > 0 || preview !== null) this.#undo.keep({ heads, preview });
  }

  /** Restores what the last Esc cleared. Each further call goes back by one more Esc. */
  undo(): void {
    this.#undo.back();
  }
}
