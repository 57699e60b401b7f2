// One attention card: a head's matrix with tokens on both axes, and what each source brings at the destination.
// A preview becomes a pinned card by staying where it is: same element, same picture.
import { computed, type Signal, signal as state, untracked } from "@preact/signals-core";
import { html, render } from "lit-html";
import { paintBrings, paintMatrix } from "../draw/matrix";
import { limitOf } from "../draw/colours";
import { parseHead, signed } from "../format";
import { element, watch } from "../lifetime";
import { isOutdated } from "../loader";
import type { Store } from "../store";
import type { Attention, AttentionStore } from "./attention-data";
import { axisLabels } from "./card-labels";
import { mountCursor } from "./card-cursor";
import { prose } from "./prose";

/** CSS pixels of the matrix and of the bars: the same for one token and for a thousand. */
export const SIDE = 264;
const BARS = 38;
let cards = 0;

export interface Card {
  node: HTMLElement;
  head: Signal<string>;
}

export function createCard(head: string, store: Store, data: AttentionStore, signal: AbortSignal): Card {
  const lane = `attention ${++cards}`;
  const name = state(head);
  const shown = state<{ attention: Attention; head: string } | null>(null);
  const trouble = state<string | null>(null);

  const title = element("div", "rs-card-title");
  const matrix = element("canvas", "rs-matrix", { tabindex: "0", role: "application", "aria-roledescription": "attention matrix" });
  const overlay = element("div", "rs-overlay");
  const sources = element("div", "rs-sources", { "aria-hidden": "true" });
  const destinations = element("div", "rs-destinations", { "aria-hidden": "true" });
  const bars = element("canvas", "rs-brings", { "aria-hidden": "true" });
  const barsLabel = element("div", "rs-brings-label", { "aria-hidden": "true" });
  const to = element("div", "rs-axis-to", { "aria-hidden": "true" }, element("span", "", {}, "to (destination)"));
  const field = element("div", "rs-field", {}, matrix, overlay);
  const picture = element("div", "rs-picture", {}, to, sources, destinations, field, barsLabel, bars);
  const node = element("section", "rs-card", { role: "region" }, title, picture);

  watch(signal, () => {
    const at = parseHead(name.value);
    node.setAttribute("aria-label", `Attention ${name.value}`);
    matrix.setAttribute("aria-label", `Attention of ${name.value}. Arrow keys move through the cells.`);
    node.dataset["layer"] = String(at?.layer ?? "");
    node.dataset["head"] = String(at?.head ?? "");
    const value = store.problems.value.has("heads") ? null : store.headValue(name.value);
    const pinned = store.heads.value.includes(name.value);
    const notes = shown.value?.head === name.value ? shown.value.attention.notes : [];
    const say = (): void => void (store.sentence.value = [notes.join(" ")]);
    const hush = (): void => void (store.sentence.value = null);
    node.classList.toggle("rs-preview", !pinned);
    render(
      html`<b class="rs-name">${name.value}</b>
        ${value === null ? null : html`<span class="rs-number ${value < 0 ? "rs-minus" : "rs-plus"}">${signed(value)}</span>`}
        <button type="button" class="rs-quiet" aria-label="${pinned ? "unpin" : "pin"} ${name.value}"
          @click=${() => store.togglePin(name.value)}>${pinned ? "unpin" : "pin"}</button>
        <span class="rs-axis-from" aria-hidden="true">from (source) →</span>
        ${notes.length > 0 ? html`<span class="rs-card-note" role="note" tabindex="0" title=${notes.join(" ")} aria-label=${`note: ${notes.join(" ")}`}
          @pointerenter=${say} @focus=${say} @pointerleave=${hush} @blur=${hush}>note</span>` : null}
        ${trouble.value ? html`<span class="rs-trouble" title=${trouble.value}>${prose(trouble.value)}</span>` : null}`,
      title,
    );
  });

  // The picture that is there at once, or asked for; the last one stays until then.
  watch(signal, () => {
    const head = name.value;
    const key = data.key(head);
    const kept = data.kept(key);
    untracked(() => {
      const put = (attention: Attention): void => {
        shown.value = { attention, head };
        trouble.value = null;
        node.classList.remove("rs-waiting");
      };
      // A kept picture is drawn at once, and asked for again all the same: the cache may have changed under its name.
      if (kept) put(kept);
      else node.classList.add("rs-waiting");
      data.read(lane, head, key).then(
        (attention) => {
          // Overtaken, or another picture was put from the kept ones meanwhile.
          if (attention && !signal.aborted && data.key(name.peek()) === key) put(attention);
        },
        (error: unknown) => {
          if (signal.aborted || isOutdated(error, store)) return;
          trouble.value = error instanceof Error ? error.message : String(error);
          node.classList.remove("rs-waiting");
        },
      );
    });
  });

  watch(signal, () => {
    const picture = shown.value?.attention;
    if (!picture) return;
    const theme = store.theme.value;
    paintMatrix(matrix, picture.matrix, SIDE, theme);
    paintBrings(bars, picture.brings ?? new Float32Array(0), SIDE, BARS, theme, theme === "dark" ? "#4a5158" : "#cfd2d2");
    const limit = picture.brings ? limitOf(picture.brings) : 0;
    const tallest = limit >= 0.0005 ? `±${limit.toFixed(limit >= 0.095 ? 2 : 3)}` : "<0.001";
    barsLabel.textContent = picture.brings ? `brings ${tallest}` : "";
    barsLabel.title = `What each source brings to the ${store.quantity.value} at the destination; the tallest bar is ${tallest}.`;
  });

  const size = computed(() => shown.value?.attention.matrix.size ?? store.facts.value?.positions ?? 0);
  watch(signal, () => {
    render(axisLabels(store, size.value, "source"), sources);
    render(axisLabels(store, size.value, "destination"), destinations);
  });
  mountCursor(matrix, overlay, store, computed(() => shown.value), signal);

  return { node, head: name };
}
