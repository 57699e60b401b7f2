// The table of all that can be selected in a view. All other declarations are derived from it: the store's signals, the
// traits shared with Python, what is sent to the kernel, what a host stores, and the checks of values from outside.

import { type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import { safeParse } from "valibot";
import { parseHead } from "../base/format";
import { keysOf } from "../base/keys-of";
import * as wire from "../wire/protocol.check.gen";
import type { CacheRow, Shown, Step, Target } from "../wire/protocol.gen";
import { isSet, NOTHING } from "./target";

type Usual = typeof wire.UNSELECTED;
export type Shape = Pick<CacheRow, "layers" | "heads" | "prompts" | "positions">;

/** One thing that can be selected. */
interface Selectable<T, WireName = keyof Shown | null, Trait = string | null, Kept = boolean> {
  /** The value before anything is selected. */
  readonly first: T;
  /** Checks a value from outside; undefined if it is not valid. */
  readonly read: (value: unknown) => T | undefined;
  /** Its name in the wire's `Shown`; null if it is not sent to the kernel. */
  readonly wireName: WireName;
  /** The name of its trait in py_backend/residscope/hosts/panel.py; null if it has none. */
  readonly trait: Trait;
  /** Whether a host stores it and restores it later. */
  readonly kept: Kept;
  /** The part of a value that is valid for a cache of this shape; by default the whole value. */
  readonly fit?: (value: T, shape: Shape) => T;
  /** Whether a value may be shared with Python; by default always. */
  readonly whole?: (value: T) => boolean;
}

/** A field of `Shown`, with its name, type, first value and check. Its trait has the same name. */
function wired<Name extends keyof Usual>(
  name: Name,
  more: Partial<Pick<Selectable<Usual[Name]>, "read" | "fit">> = {},
): Selectable<Usual[Name], Name, Name, true> {
  const read = (value: unknown): Usual[Name] | undefined => {
    const found = safeParse(wire.Shown.entries[name], value);
    return found.success ? (found.output as Usual[Name]) : undefined;
  };
  return { first: wire.UNSELECTED[name], read, wireName: name, trait: name, kept: true, ...more };
}

/** A value of this view only, which is not sent to the kernel. */
function own<T>(first: T, read: (value: unknown) => T | undefined): Selectable<T, null, null, true> {
  return { first, read, wireName: null, trait: null, kept: true };
}

const index = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isInteger(value) && value >= 0 ? value : undefined;
const within = (value: number | null, count: number): number | null => (value !== null && value < count ? value : null);

/** The sections that can be folded in the narrow layout. */
export const SECTIONS = ["ranking", "views"] as const;
export type Section = (typeof SECTIONS)[number];
/** A selection from outside can have at most this many heads. */
const MOST_HEADS = 20_000;
/** The longest name of a variable, such as `runs["…"]`. */
const LONGEST_NAME = 1000;
const MOST_LISTED = 50;

const hasDirection = ({ direction, inner }: Target): boolean => !!direction || inner?.kind === "direction";

/** Whether a cache of this shape can have this target. */
export function isTargetOf(
  { contrasts, inner, through = [] }: Target,
  { layers, heads, prompts, positions }: Shape,
): boolean {
  const has = (at: number | null | undefined, count: number): boolean => index(at) !== undefined && Number(at) < count;
  const isHead = (at: { layer: number; head: number }): boolean => has(at.layer, layers) && has(at.head, heads);
  if (contrasts.length > 1 && contrasts.length !== prompts) return false;
  if (!through.every((at) => isHead(at) && has(at.source, positions))) return false;
  if (inner?.kind === "neuron") return has(inner.layer, layers);
  if (inner?.kind !== "attention") return true;
  const { destination, source, versus = "most" } = inner;
  return (
    isHead(inner) &&
    (destination === "last" || has(destination, positions)) &&
    has(source, positions) &&
    (typeof versus !== "number" || has(versus, positions))
  );
}

/** The trail, if a cache of this shape can have all its steps. */
function fittingSteps(steps: Step[], shape: Shape): Step[] {
  const fits = ({ target, position = "last" }: Step): boolean =>
    isTargetOf(target, shape) &&
    !hasDirection(target) &&
    (position === "last" || (position >= 0 && position < shape.positions));
  return steps.every(fits) ? steps : [];
}

/** The compared run, if a cache of this shape can have it. */
function fittingRun(value: Usual["against"], { layers, heads, prompts }: Shape): Usual["against"] {
  if (value === null) return null;
  const { cache = null, prompt = null, without = [] } = value;
  if (cache === null && prompt !== null && prompt >= prompts) return null; // another cache may have more prompts
  if (without.length === 0) return value;
  const left = [...new Set(without)].filter((name) => {
    const head = parseHead(name);
    return head !== null && head.layer < layers && head.head < heads;
  });
  return left.length > 0 ? { ...value, without: left } : null;
}

const target: Selectable<Target, "target", "wire_target", true> = {
  first: NOTHING,
  read: (value) => {
    const found = safeParse(wire.Target, value);
    return found.success ? found.output : undefined;
  },
  wireName: "target",
  trait: "wire_target",
  kept: true,
  // A direction is stored in one kernel, and its name means nothing elsewhere.
  fit: (value, shape) => (isTargetOf(value, shape) && !hasDirection(value) ? value : NOTHING),
  // Python sends an empty target before one is chosen. The view never sends an empty target.
  whole: (value) => Array.isArray(value?.contrasts) && isSet(value),
};
const cacheName: Selectable<string, null, "cache_name", false> = {
  first: "",
  read: (value) => (typeof value === "string" ? value : undefined),
  wireName: null,
  trait: "cache_name",
  kept: false,
};

export const SELECTABLE = {
  cacheName,
  prompt: wired("prompt", { read: index, fit: (value, { prompts }) => within(value, prompts) }),
  position: wired("position", {
    read: index,
    fit: (value, { positions }) => (value === "last" ? null : within(value, positions)) ?? "last",
  }),
  heads: wired("heads", {
    read: (value) => {
      if (!Array.isArray(value)) return undefined;
      const named = value.slice(0, MOST_HEADS).filter((head) => typeof head === "string" && parseHead(head) !== null);
      return [...new Set<string>(named)];
    },
    fit: (value, { layers, heads }) =>
      value.filter((name) => {
        const head = parseHead(name);
        return head !== null && head.layer < layers && head.head < heads;
      }),
  }),
  norm: wired("norm"),
  target,
  topK: wired("top_k", {
    read: (value) => {
      const count = index(value);
      return count === undefined ? undefined : Math.min(MOST_LISTED, Math.max(1, count));
    },
  }),
  ranking: wired("ranking"),
  /** The layer whose neurons are ranked; null: all layers. */
  layer: wired("layer", { read: index, fit: (value, { layers }) => within(value, layers) }),
  weighting: wired("weighting"),
  presentation: wired("presentation"),
  /** The score that colours the head map; null: the contributions. */
  score: wired("score"),
  tab: wired("tab"),
  /** The targets that the user chose one after another, each with its position; empty if there is only one target. */
  trail: wired("trail", { fit: (value, shape) => fittingSteps(value, shape) }),
  /** The place of the present step in the trail. */
  stepAt: wired("step", { read: index }),
  /** What the tab "why" shows of an attention score. */
  whyShows: wired("why"),
  /** The head input to which the head map shows each earlier head's contribution; null: no such colouring. */
  feeds: wired("feeds", {
    fit: (value, { layers, heads, positions }) =>
      value && value.layer < layers && value.head < heads && value.source < positions ? value : null,
  }),
  /** The run that the shown one is compared with; null: no comparison. */
  against: wired("against", { fit: fittingRun }),
  /** Which of the two runs the head map shows, or their difference. */
  run: wired("run"),
  /** Which effect of the heads the head map shows. */
  effect: wired("effect"),
  /** What takes the place of a head's output in the runs that measure effects. */
  replacedBy: wired("replaced_by"),
  /** How the prompt is divided into segments; null: the tokens are shown one by one. */
  segments: wired("segments", {
    fit: (value, { positions }) =>
      !Array.isArray(value) || value.every(({ start, end }) => 0 <= start && start < end && end <= positions)
        ? value
        : null,
  }),
  /** Whether the logit lens maps the stream to its end, if a lens was given. */
  transport: wired("transport"),
  /** The SAE whose features are shown; null: the first one. */
  sae: wired("sae"),
  /** The feature of this SAE whose activations colour the tokens. */
  feature: wired("feature", { read: index }),
  /** Whether the token lens has a row for each layer, or for each point of the stream. */
  lensRows: wired("lens_rows"),
  /** Whether padding is left out, or counts as real tokens. */
  padding: wired("padding"),
  /** The rows of the position map. Python has no trait for it, and no host stores it. */
  mapBy: { ...wired("by"), trait: null, kept: false as const },
  folded: own<readonly Section[]>([], (value) =>
    Array.isArray(value) ? SECTIONS.filter((name) => value.includes(name)) : undefined,
  ),
  /** The variable that the view follows: a new cache of this name is shown automatically. Null: none. */
  follow: own<string | null>(null, (value) =>
    typeof value === "string" && value !== "" && value.length <= LONGEST_NAME ? value : undefined,
  ),
};

// --- derived from the table -----------------------------------------------------------------------------------------
type Table = typeof SELECTABLE;
export type Name = keyof Table;
export type Values = { [N in Name]: Table[N]["first"] };
/** The names that a host stores. */
export type KeptName = { [N in Name]: Table[N]["kept"] extends true ? N : never }[Name];
type WireNamed = { [N in Name]: Table[N]["wireName"] extends null ? never : N }[Name];
type SharedName = { [N in Name]: Table[N]["trait"] extends null ? never : N }[Name];
/** What Python and the views share, by the names of the traits. */
export type SharedTraits = { [N in SharedName as Table[N]["trait"] & string]: Values[N] };
export type Signals = { readonly [N in Name]: Signal<Values[N]> };
export type Chosen = { readonly [N in Name]: ReadonlySignal<Values[N]> };
/** All that is selected, by the names of the wire. */
export type Selected = Required<Shown>;

/** The table with general types, for code that iterates over all rows. */
const ROWS: { readonly [N in Name]: Selectable<Values[N]> } = SELECTABLE;
const NAMES = keysOf(SELECTABLE);
export const KEPT = NAMES.filter((name): name is KeptName => SELECTABLE[name].kept);
const ON_WIRE = NAMES.filter((name): name is WireNamed => SELECTABLE[name].wireName !== null);
const SHARED = NAMES.filter((name): name is SharedName => SELECTABLE[name].trait !== null);
export const TRAITS = SHARED.map((name) => SELECTABLE[name].trait);

type None<Missing extends never> = Missing;
/** If a field of `Shown` has no row in the table, the compiler reports it here. */
export type MissingRows = None<Exclude<keyof Shown, Table[WireNamed]["wireName"]>>;

/** A signal for each row. */
export const SelectionSignals = class {
  constructor() {
    Object.assign(this, Object.fromEntries(NAMES.map((name) => [name, signal<unknown>(ROWS[name].first)])));
  }
} as new () => Signals;

/** The signals. `inRequests` replaces two of them by signals whose values have the form that requests need. */
export function chosenOf(signals: Signals, inRequests: Pick<Chosen, "position" | "transport">): Chosen {
  const own = Object.fromEntries(NAMES.map((name) => [name, signals[name]]));
  return { ...(own as unknown as Chosen), ...inRequests };
}

/** The selection by the names of the wire. Each signal is read, and subscribed to, only when its property is read. */
export function wireSelection(chosen: Chosen): Selected {
  const wireName = {};
  for (const name of ON_WIRE)
    Object.defineProperty(wireName, SELECTABLE[name].wireName, { enumerable: true, get: () => chosen[name].value });
  return wireName as Selected;
}

/** Values of the wire by the names of the table. An invalid value is replaced by the first value of its row. */
export function readShown(shown: Shown): Pick<Values, WireNamed> {
  return Object.fromEntries(ON_WIRE.map((name) => [name, read(name, shown[SELECTABLE[name].wireName])])) as Pick<
    Values,
    WireNamed
  >;
}

/** The signals that are shared with Python, by the names of the traits. */
export function sharedOf(signals: Signals): { [T in keyof SharedTraits]: Signal<SharedTraits[T]> } {
  const shared = Object.fromEntries(SHARED.map((name) => [SELECTABLE[name].trait, signals[name]]));
  return shared as unknown as { [T in keyof SharedTraits]: Signal<SharedTraits[T]> };
}

/** The shared values before anything is selected. */
export function firstTraits(): SharedTraits {
  return Object.fromEntries(SHARED.map((name) => [SELECTABLE[name].trait, SELECTABLE[name].first])) as SharedTraits;
}

/** Whether a trait's value may be shared. */
export function isWhole<T extends keyof SharedTraits>(trait: T, value: SharedTraits[T]): boolean {
  const name = SHARED.find((one) => SELECTABLE[one].trait === trait);
  const row = name && (ROWS[name] as Selectable<unknown>);
  return row?.whole?.(value) ?? true;
}

/** A value from outside, or the first value if it is not valid. */
export function read<N extends Name>(name: N, value: unknown): Values[N] {
  const row: Selectable<Values[N]> = ROWS[name];
  return row.read(value) ?? row.first;
}

/** The part of a value that is valid for a cache of this shape. */
export function fit<N extends Name>(name: N, value: Values[N], shape: Shape): Values[N] {
  const row: Selectable<Values[N]> = ROWS[name];
  return row.fit ? row.fit(value, shape) : value;
}
