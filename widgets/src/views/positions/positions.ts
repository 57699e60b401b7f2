// Position map: the contribution of each component at each position. Rows are sublayers, points of the lens, or heads.

import { computed } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { plural, signed } from "../../base/format";
import { keysOf } from "../../base/keys-of";
import { element, watch } from "../../base/lifetime";
import { clippedLimit, endsOf, isBeyond } from "../../draw/clipped";
import { divergingGradient } from "../../draw/colours";
import { type ReadPicture, shownAs } from "../../export/pictures";
import { holdOf } from "../../state/held-scale";
import { answerFrom } from "../../state/next-tokens";
import { asking } from "../../state/query";
import { positionMap } from "../../state/questions";
import { rankedHeads } from "../../state/scene";
import { promptKey } from "../../state/segments";
import { isSet } from "../../state/target";
import { mountCaption, mountTrouble } from "../../ui/caption";
import { readInPlace } from "../../ui/lens-transport";
import { float32 } from "../../wire/client";
import { componentsOf } from "../../wire/components";
import type { MapPositions } from "../../wire/protocol.gen";
import type { AttentionRoom } from "../attention/attention-room";
import { missingWords } from "../header/badge-words";
import type { TabView } from "../tab-view";
import { mountPositionMap } from "./position-map";
import type { PositionPicture } from "./position-picture";
import { POSITIONS } from "./positions-export";

/** A map as it was received, and the key of its prompt. */
type Received = Omit<PositionPicture, "limit"> & { prompt: string };
type By = NonNullable<MapPositions["by"]>;
/** The texts and the tooltips of the buttons that choose the rows. */
const BUTTONS: Record<By, [text: string, tooltip: string]> = {
  layer: ["layers", "What each layer’s attention and MLP add"],
  accumulated: ["lens", "The logit lens at every position: the residual stream up to each point"],
  head: ["heads", "The pinned heads and the top heads"],
};

export const positions: TabView = {
  name: "Positions",
  tip: "What each component adds at each position",
  chapter: () => "mathematics",
  requests: ({ shown, ranked }) => (shown.by === "head" && ranked.length === 0 ? [] : [positionMap(shown, ranked)]),
  options: () => [],
  mount,
};

function mount(
  parent: HTMLElement,
  controls: HTMLElement,
  { store, client }: AttentionRoom,
  signal: AbortSignal,
): ReadPicture {
  const inSight = computed(() => store.tab.value === "positions");
  /** The pinned heads, then the top heads. */
  const heads = computed(() => rankedHeads(store));
  const request = asking<"positions", Received>(
    "positions",
    store,
    client,
    signal,
    () => {
      const [by, target] = [store.mapBy.value, store.target.value];
      if (!inSight.value || !isSet(target) || (by === "head" && heads.value.length === 0)) return null;
      return positionMap(store.shown, by === "head" ? heads.value : []);
    },
    ({ reply, buffers }, ask) => ({
      by: ask.by,
      reply,
      values: float32(buffers[0]),
      own: float32(buffers[1]),
      prompt: promptKey(store.dataKey.peek(), ask.prompt ?? null),
    }),
  );
  let last: { of: Received; limit: number } | null = null;
  /** The tokens may arrive later than the map of their prompt, and change the limit. Tokens of other prompts do not. */
  const limitFor = (of: Received): number => {
    const isOther = of.prompt !== promptKey(store.dataKey.value, store.prompt.value);
    if (isOther && last?.of === of) return last.limit;
    const tokens = store.tokens.value;
    const isPadding = (column: number): boolean => tokens[column]?.padding ?? false;
    const limit = clippedLimit(of.values, of.reply.positions, store.lastPosition.value, isPadding, answerFrom(store));
    last = { of, limit };
    return limit;
  };
  const hold = holdOf(store, "positions");
  hold.follow(store, signal);
  const shown = computed((): PositionPicture | null => {
    const received = request.shown.value;
    if (!received) return null;
    const { by } = received;
    const limit = limitFor(received);
    return { ...received, limit: hold.range(by, { low: -limit, high: limit }).high };
  });
  const clippedCount = computed(() => (shown.value ? countBeyond(shown.value) : 0));

  const caption = element("p", "rs-caption");
  const picture = element("div", "rs-position-map");
  const trouble = element("p", "rs-view-trouble", { role: "note" });
  parent.append(caption, element("div", "rs-view-place", {}, picture, trouble));

  mountTrouble(trouble, picture, signal, () =>
    isSet(store.target.value) ? request.trouble.value : store.reasonNotDrawn("positions"),
  );
  watch(signal, () => void picture.classList.toggle("rs-waiting", request.waiting.value));
  mountCaption(caption, store, signal, () => {
    const by = shown.value?.by ?? store.mapBy.value;
    const scaled = answerFrom(store) > 0 && !hold.on.value ? " The colours are scaled to the answer." : "";
    const clipped = clippedCount.value > 0 ? ` ${beyondWords(clippedCount.value)}` : "";
    const read = readInPlace(store);
    const constant = Math.abs(store.headRows.value?.reply.constant ?? 0) >= 0.005;
    const what = {
      accumulated:
        "The residual stream up to each point ↓ at each position →, " +
        `${
          store.norm.value === "frozen" ? "the norm’s scale held fixed" : "the norm recomputed at each point"
        }${read === null ? "" : `; transported: ${read}`}${constant ? "; the constant is not included" : ""}.`,
      layer:
        (shown.value?.reply.missing ?? []).length > 0
          ? "What each component ↓ adds at each position →, without components that were not cached: " +
            `${missingWords(shown.value?.reply.missing ?? [])}.`
          : "What each component ↓ adds at each position →. A column’s " +
            `rows${constant ? " and the constant" : ""} add up to the model’s own value above it.`,
      head: "What each head ↓ adds at each position →.",
    }[by];
    return {
      words: `${what} ${
        store.asksEach.value
          ? "Each column has its own target: the token that came next, which is above the column."
          : "Each column shows contributions to the target at that position."
      }${scaled}${clipped}`,
      notes: shown.value?.reply.notes ?? [],
    };
  });
  watch(signal, () => {
    const { limit = 0, values = new Float32Array(0) } = shown.value ?? {};
    const [low, high] = endsOf(values, { low: -limit, high: limit }, (value) => signed(value, limit));
    const isHeld = hold.on.value;
    render(
      html`${
        shown.value === null
          ? nothing
          : html`<div class="rs-scale" role="img"
              title="${isHeld ? "The colours are held. " : ""}${beyondWords(clippedCount.value)}"
          aria-label="colours from ${low} to ${high}${isHeld ? ", held" : ""}${
            clippedCount.value > 0 ? `; beyond them ${plural(clippedCount.value, "cell")}` : ""
          }">${low}<i
          style="background-image:${divergingGradient(store.theme.value).replace(
            "to top",
            "to right",
          )}"></i>${high}${isHeld ? html` <small>held</small>` : nothing}</div>${hold.button("the position map")}`
      }
        <div class="rs-switch" role="group" aria-label="Rows of the position map">
          ${keysOf(BUTTONS).map((by) => {
            const [text, tooltip] = BUTTONS[by];
            return html`<button type="button" aria-pressed=${store.mapBy.value === by} title=${tooltip}
            @click=${() => (store.mapBy.value = by)}>${text}</button>`;
          })}
        </div>`,
      controls,
    );
  });

  mountPositionMap(picture, store, shown, signal);
  return () => {
    const complete = request.trouble.value !== null || request.waiting.peek() ? null : shown.value;
    return (
      complete &&
      shownAs(POSITIONS, {
        picture: "positions",
        by: complete.by,
        labels: componentsOf(complete.reply.components).map(({ label }) => label),
        positions: complete.reply.positions,
        values: complete.values,
        own: complete.own,
        limit: complete.limit,
        notes: complete.reply.notes,
      })
    );
  };
}

function countBeyond({ values, limit }: PositionPicture): number {
  return values.reduce((count, value) => count + (isBeyond(value, { low: -limit, high: limit }) ? 1 : 0), 0);
}

function beyondWords(count: number): string {
  return count === 0 ? "" : `A dot marks what lies beyond the colours: ${plural(count, "cell")}.`;
}
