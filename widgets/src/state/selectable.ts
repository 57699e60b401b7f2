// All that can be selected in a view: the one table. The store's signals, the traits that Python shares, what the kernel
// is told, what a host keeps and puts back, and what passes for any of it from outside, all follow from it.
import { type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import { safeParse } from "valibot";
import { parseHead } from "../base/format";
import * as wire from "../wire/protocol.check.gen";
import type { CacheRow, Shown, Target } from "../wire/protocol.gen";
import { isSet, NOTHING } from "./target";

type Usual = typeof wire.UNSELECTED;
export type Shape = Pick<CacheRow, "layers" | "heads" | "prompts" | "positions">;

/** One thing that can be selected. */
interface Selectable<T, Told = keyof Shown | null, Trait = string | null, Kept = boolean> {
  /** What it is until somebody selects. */
  readonly first: T;
  /** What came from outside, as far as it is one; else undefined. */
  readonly read: (value: unknown) => T | undefined;
  /** What the kernel knows it by, in `Shown`. */
  readonly told: Told;
  /** The trait of py_backend/residscope/hosts/panel.py. */
  readonly trait: Trait;
  /** Whether a host keeps it, and puts it back later. */
  readonly kept: Kept;
  /** What of it makes sense for a cache of this shape: all of it, unless it says otherwise. */
  readonly fit?: (value: T, shape: Shape) => T;
  /** Whether it is one at all, to be shared with Python: always, unless it says otherwise. */
  readonly whole?: (value: T) => boolean;
}

/** As `Shown` has it: its name, its type, what it is at first, and what passes for one. A trait of the same name. */
function wired<Name extends keyof Usual>(
  name: Name,
  more: Partial<Pick<Selectable<Usual[Name]>, "read" | "fit">> = {},
): Selectable<Usual[Name], Name, Name, true> {
  const read = (value: unknown): Usual[Name] | undefined => {
    const found = safeParse(wire.Shown.entries[name], value);
    return found.success ? (found.output as Usual[Name]) : undefined;
  };
  return { first: wire.UNSELECTED[name], read, told: name, trait: name, kept: true, ...more };
}

/** Of this view only: the kernel does not know it. */
function own<T>(first: T, read: (value: unknown) => T | undefined): Selectable<T, null, null, true> {
  return { first, read, told: null, trait: null, kept: true };
}

const index = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isInteger(value) && value >= 0 ? value : undefined;
const within = (value: number | null, count: number): number | null => (value !== null && value < count ? value : null);

/** What folds in the narrow layout. */
export const SECTIONS = ["ranking", "views"] as const;
export type Section = (typeof SECTIONS)[number];
/** Of a selection from outside no more heads are looked at. */
const MOST_HEADS = 20_000;
/** No variable's name is longer: `runs["…"]` included. */
const LONGEST_NAME = 1000;
const MOST_LISTED = 50;

const target: Selectable<Target, "target", "wire_target", true> = {
  first: NOTHING,
  read: (value) => {
    const found = safeParse(wire.Target, value);
    return found.success ? found.output : undefined;
  },
  told: "target",
  trait: "wire_target",
  kept: true,
  // A direction is held by the kernel that was given it, under a name that means nothing elsewhere.
  fit: (value, { prompts }) =>
    value.direction || (value.contrasts.length > 1 && value.contrasts.length !== prompts) ? NOTHING : value,
  // An empty one is Python's before it has chosen: not a target, and never sent back.
  whole: (value) => Array.isArray(value?.contrasts) && isSet(value),
};
const cacheName: Selectable<string, null, "cache_name", false> = {
  first: "",
  read: (value) => (typeof value === "string" ? value : undefined),
  told: null,
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
  /** Whose neurons are ranked; null is all layers'. */
  layer: wired("layer", { read: index, fit: (value, { layers }) => within(value, layers) }),
  weighting: wired("weighting"),
  presentation: wired("presentation"),
  /** What colours the head map; null is what each head adds. */
  score: wired("score"),
  tab: wired("tab"),
  /** Whether what was treated as padding is left out, or counts as real. */
  padding: wired("padding"),
  /** The rows of the position map. Python has no trait of it, and no host keeps it. */
  mapBy: { ...wired("by"), trait: null, kept: false as const },
  folded: own<readonly Section[]>([], (value) =>
    Array.isArray(value) ? SECTIONS.filter((name) => value.includes(name)) : undefined,
  ),
  /** The variable whose new caches the view takes by itself; null where none is followed. */
  follow: own<string | null>(null, (value) =>
    typeof value === "string" && value !== "" && value.length <= LONGEST_NAME ? value : undefined,
  ),
};

// --- what follows from it -------------------------------------------------------------------------------------------
type Table = typeof SELECTABLE;
export type Name = keyof Table;
export type Values = { [N in Name]: Table[N]["first"] };
/** The names that a host keeps. */
export type KeptName = { [N in Name]: Table[N]["kept"] extends true ? N : never }[Name];
type ToldName = { [N in Name]: Table[N]["told"] extends null ? never : N }[Name];
type SharedName = { [N in Name]: Table[N]["trait"] extends null ? never : N }[Name];
/** What Python and the views share, by its trait. */
export type SharedTraits = { [N in SharedName as Table[N]["trait"] & string]: Values[N] };
export type Signals = { readonly [N in Name]: Signal<Values[N]> };
export type Chosen = { readonly [N in Name]: ReadonlySignal<Values[N]> };
/** All that is selected, as the kernel is told. */
export type Selected = Required<Shown>;

/** The table, whatever its rows say: for those who go through all of it. */
const ROWS: { readonly [N in Name]: Selectable<Values[N]> } = SELECTABLE;
const NAMES = Object.keys(SELECTABLE) as Name[];
export const KEPT = NAMES.filter((name): name is KeptName => SELECTABLE[name].kept);
const TOLD = NAMES.filter((name): name is ToldName => SELECTABLE[name].told !== null);
const SHARED = NAMES.filter((name): name is SharedName => SELECTABLE[name].trait !== null);
export const TRAITS = SHARED.map((name) => SELECTABLE[name].trait);

type None<Missing extends never> = Missing;
/** The compiler names here what `Shown` has and no row tells. */
export type Untold = None<Exclude<keyof Shown, Table[ToldName]["told"]>>;

/** A signal for each row. */
export const SelectionSignals = class {
  constructor() {
    Object.assign(this, Object.fromEntries(NAMES.map((name) => [name, signal<unknown>(ROWS[name].first)])));
  }
} as new () => Signals;

/** What requests and selections carry: the signals, but for the position, which is "last" where it is that one. */
export function chosenOf(signals: Signals, position: Chosen["position"]): Chosen {
  const own = Object.fromEntries(NAMES.map((name) => [name, signals[name]]));
  return { ...(own as unknown as Chosen), position };
}

/** The same as the kernel is told. Each is read, and subscribed to, when it is looked at. */
export function toldOf(chosen: Chosen): Selected {
  const told = {};
  for (const name of TOLD)
    Object.defineProperty(told, SELECTABLE[name].told, { enumerable: true, get: () => chosen[name].value });
  return told as Selected;
}

/** What the kernel is told, by the names of the table; what is no such thing is as at first. */
export function readTold(shown: Shown): Pick<Values, ToldName> {
  return Object.fromEntries(TOLD.map((name) => [name, read(name, shown[SELECTABLE[name].told])])) as Pick<
    Values,
    ToldName
  >;
}

/** The signals that Python shares, by their traits. */
export function sharedOf(signals: Signals): { [T in keyof SharedTraits]: Signal<SharedTraits[T]> } {
  const shared = Object.fromEntries(SHARED.map((name) => [SELECTABLE[name].trait, signals[name]]));
  return shared as unknown as { [T in keyof SharedTraits]: Signal<SharedTraits[T]> };
}

/** What Python and the views share where nobody has selected anything. */
export function firstTraits(): SharedTraits {
  return Object.fromEntries(SHARED.map((name) => [SELECTABLE[name].trait, SELECTABLE[name].first])) as SharedTraits;
}

/** Whether a trait's value is one to be shared. */
export function isWhole<T extends keyof SharedTraits>(trait: T, value: SharedTraits[T]): boolean {
  const name = SHARED.find((one) => SELECTABLE[one].trait === trait);
  const row = name && (ROWS[name] as Selectable<unknown>);
  return row?.whole?.(value) ?? true;
}

/** What came from outside, or what it is at first. */
export function read<N extends Name>(name: N, value: unknown): Values[N] {
  const row: Selectable<Values[N]> = ROWS[name];
  return row.read(value) ?? row.first;
}

/** What of it makes sense for a cache of this shape. */
export function fit<N extends Name>(name: N, value: Values[N], shape: Shape): Values[N] {
  const row: Selectable<Values[N]> = ROWS[name];
  return row.fit ? row.fit(value, shape) : value;
}
