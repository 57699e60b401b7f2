// The head map: a row for each layer, with a cell for each head. Next to it, with the same rows, are the charts of the
// layers and of the logit lens. The cells are elements that are created once for a model's shape, so that hovering
// changes only two of them. state/map-picture.ts decides the colours.
import { computed, type ReadonlySignal, untracked } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { headName, parseHead } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { css } from "../../draw/colours";
import { bandAbove, layerTicks } from "../../state/axis";
import {
  cellWords,
  colourOf,
  effectWords,
  endWords,
  isHatched,
  levelScale,
  liesBeyond,
  mapPicture,
  runWords,
  share,
  valueIn,
  whyEmpty,
} from "../../state/map-picture";
import { FEEDS, SCORES, type Store } from "../../state/store";
import { isSet } from "../../state/target";
import { alignOffer } from "../../ui/align-offer";
import { RestingPlace, whenPointedAt } from "../../ui/pointer";
import { prose } from "../../ui/prose";
import { stepAcross, TabStop } from "../../ui/roving";
import { mountEffects, mountRunButton } from "./effects";
import { mountLayers } from "./layers";
import { mountLens } from "./lens";
import { mountScoreChoice } from "./score-choice";

/** The words for a head in a layer that is not before the point at which the target is read. */
const LATE = "not before the point";

export function mountHeads(parent: HTMLElement, store: Store, row: ReadonlySignal<number>, signal: AbortSignal): void {
  const choice = element("div", "rs-choice");
  const act = element("span", "rs-effects-act", { hidden: "" });
  const title = element(
    "div",
    "rs-title",
    {},
    element("h3", "", {}, "Heads ", element("span", "", {}, "layer ↓ × head →")),
    choice,
  );
  const map = element("div", "rs-headmap");
  const rowLabels = element("div", "rs-map-rows", { "aria-hidden": "true" });
  const columnLabels = element("div", "rs-map-columns", { "aria-hidden": "true" });
  const grid = element("div", "rs-grid", { role: "grid", "aria-label": "Head map", "aria-multiselectable": "true" });
  const bar = element("div", "rs-bar-scale", { "aria-hidden": "true" });
  const marker = element("i", "rs-bar-marker");
  const colours = element("div", "rs-bar-colours", {}, marker);
  const ends = [element("span"), element("span")] as const;
  const tip = element("span", "rs-tip rs-map-tip", { hidden: "" });
  bar.append(ends[0], colours, ends[1]);
  map.append(rowLabels, grid, columnLabels, bar);
  grid.append(tip);
  const refusal = element("p", "rs-map-refusal", { role: "note" });
  const place = element("div", "rs-map-place", {}, map, refusal);
  const layers = element("div", "rs-layers-place");
  const lens = element("div", "rs-lens-place");
  const axes = element("div", "rs-axes", {}, place, layers, lens);
  const effects = element("div", "rs-effects");
  parent.append(title, axes, effects);
  mountEffects(effects, store, signal);
  mountScoreChoice(choice, store, signal);
  choice.before(act);
  mountRunButton(act, store, signal);
  mountLayers(layers, store, row, signal);
  mountLens(lens, store, row, signal);
  watch(signal, () => {
    const height = row.value;
    axes.style.setProperty("--cell", `${height}px`);
    axes.style.setProperty("--above", `${bandAbove(height)}px`);
    axes.style.setProperty("--gap", height > 7 ? "1px" : height > 4.5 ? "0.5px" : "0px");
  });

  const cells = new Map<string, HTMLElement>();
  const tabStop = new TabStop();
  const shape = computed(() => `${store.facts.value?.layers ?? 0}x${store.facts.value?.heads ?? 0}`);

  const picture = mapPicture(store);
  watch(signal, () => {
    const feeds = store.feeds.value !== null;
    const added = store.score.value === null && !feeds;
    const effect = store.effectShown.value;
    const noTarget = isSet(store.target.value) ? null : store.problems.value.get("target");
    const why =
      effect !== "direct"
        ? (noTarget ?? store.effects.heads.refusal.value ?? undefined)
        : feeds
          ? (store.problems.value.get(FEEDS) ?? undefined)
          : added
            ? (store.runs.whyNoRows() ?? store.runs.rows.value?.reply.refusal ?? undefined)
            : (store.problems.value.get(SCORES) ?? undefined);
    // If attention patterns were cached, the map is still needed to choose heads: its cells stay, without a colour.
    const neutral = added && why !== undefined && !(store.facts.value?.missing.includes("attn.hook_pattern") ?? true);
    refusal.hidden = why === undefined;
    map.toggleAttribute("inert", why !== undefined && !neutral);
    place.classList.toggle("rs-neutral", neutral);
    place.classList.toggle("rs-recount", store.computingScores.value > 0 || (picture.value?.pending ?? false));
    const back = (): void => void (store.effect.value = "direct");
    render(
      why === undefined
        ? nothing
        : html`${prose(why)}${
            effect === "direct"
              ? alignOffer(store)
              : html` <button type="button" class="rs-act" @click=${back}>show direct effects</button>`
          }`,
      refusal,
    );
  });

  watch(signal, () => {
    const [layers = 0, heads = 0] = shape.value.split("x").map(Number);
    untracked(() => build(layers, heads));
  });

  function build(layers: number, heads: number): void {
    cells.clear();
    grid.replaceChildren();
    if (layers === 0) return;
    axes.style.setProperty("--rows", String(layers));
    axes.style.setProperty("--columns", String(heads));
    for (let layer = 0; layer < layers; layer += 1) {
      const row = element("div", "rs-row", { role: "row" });
      for (let head = 0; head < heads; head += 1) {
        const name = headName(layer, head);
        const cell = element("div", "rs-cell", {
          role: "gridcell",
          tabindex: "-1",
          "aria-selected": "false",
          "aria-label": name,
        });
        cell.dataset["head"] = name;
        cells.set(name, cell);
        row.append(cell);
      }
      grid.append(row);
    }
    grid.append(tip);
    tabStop.move(cells.get("L0H0") ?? null);
    const label = (at: number, count: number, side: "top" | "left"): HTMLElement => {
      const span = element("span", "", {}, String(at));
      span.style[side] = `${((at + 0.5) / count) * 100}%`;
      return span;
    };
    rowLabels.replaceChildren(...layerTicks(layers, 10).map((l) => label(l, layers, "top")));
    columnLabels.replaceChildren(...layerTicks(heads, 12).map((h) => label(h, heads, "left")));
  }

  /**
   * The first layer whose heads have no value. For what feeds a head, it is the layer of that head. For contributions,
   * it is the first layer that is not before the point at which the target is read. Scores have values in all layers.
   */
  const endOf = (): number => {
    const feeds = store.feeds.value;
    if (feeds) return feeds.layer;
    return store.score.value === null ? store.targetLayer.value : Infinity;
  };
  // Updates the colours and labels of the cells when the values or the theme change.
  watch(signal, () => {
    void shape.value;
    const theme = store.theme.value;
    const shown = picture.value;
    const end = endOf();
    if (!shown) return clear();
    let index = 0;
    for (const [name, cell] of cells) {
      const value = shown.values[index] ?? NaN;
      const absent = store.isAbsent(name);
      const unknown = Number.isNaN(value);
      const late = (parseHead(name)?.layer ?? 0) >= end;
      cell.classList.toggle("rs-late", late && !absent);
      cell.classList.toggle("rs-absent", absent || (unknown && !shown.measured));
      if (absent) cell.setAttribute("aria-disabled", "true");
      else cell.removeAttribute("aria-disabled");
      cell.style.backgroundColor = absent || unknown || late ? "" : css(colourOf(shown, value, theme));
      cell.classList.toggle("rs-estimate", !absent && !unknown && !late && !shown.pending && isHatched(shown, index));
      cell.classList.toggle("rs-beyond", !absent && !late && liesBeyond(shown, value));
      cell.setAttribute(
        "aria-label",
        `${name} ${
          absent
            ? whyEmpty(store, shown, name)
            : late
              ? LATE
              : shown.pending
                ? "not known yet"
                : shown.measured
                  ? effectWords(shown, index)
                  : unknown && shown.score === null
                    ? whyEmpty(store, shown, name)
                    : cellWords(shown, value) + runWords(shown, index)
        }`,
      );
      index += 1;
    }
    bar.classList.toggle("rs-empty", shown.measured !== null && shown.largest === 0); // nothing is known yet
    colours.style.backgroundImage = levelScale(shown, theme);
    const texts = shown.pending && store.isLate.value ? ["", ""] : endWords(shown);
    [ends[0].textContent, ends[1].textContent] = [texts[0] ?? "", texts[1] ?? ""];
  });

  /** There is no value to show: the request failed, or nothing was received yet. */
  function clear(): void {
    for (const [name, cell] of cells) {
      cell.classList.remove("rs-late", "rs-absent", "rs-estimate", "rs-beyond");
      cell.removeAttribute("aria-disabled");
      cell.style.backgroundColor = "";
      cell.setAttribute("aria-label", `${name} not known`);
    }
    bar.classList.add("rs-empty");
    colours.style.backgroundImage = "";
    ends[0].textContent = ends[1].textContent = "";
  }

  watch(signal, () => {
    void shape.value;
    const pinned = new Set(store.heads.value);
    for (const [name, cell] of cells) {
      const on = pinned.has(name);
      if ((cell.getAttribute("aria-selected") === "true") !== on) cell.setAttribute("aria-selected", String(on));
    }
  });

  // Shows the value of the hovered cell in a tooltip and on the colour bar.
  let lit: HTMLElement | null = null;
  watch(signal, () => {
    const name = store.hoveredHead.value;
    const cell = name === null ? null : (cells.get(name) ?? null);
    lit?.classList.remove("rs-hover");
    cell?.classList.add("rs-hover");
    lit = cell;
    const head = name === null ? null : parseHead(name);
    const facts = store.facts.value;
    const shown = picture.value;
    const value = name === null || !facts || !shown || store.isAbsent(name) ? NaN : valueIn(shown, name, facts.heads);
    const isKnown = !Number.isNaN(value) && shown?.pending === false;
    tip.hidden = marker.hidden = !cell || !isKnown;
    if (!head || !facts || !shown || !isKnown) return;
    const late = head.layer >= endOf();
    marker.hidden = late;
    const index = head.layer * facts.heads + head.head;
    const both = runWords(shown, index);
    const words = shown.measured ? effectWords(shown, index) : cellWords(shown, value) + both;
    tip.replaceChildren(element("b", "", {}, name ?? ""), ` ${late ? LATE : words}`);
    tip.classList.toggle("rs-tip-both", both !== "");
    tip.classList.toggle("rs-tip-wide", shown.measured !== null);
    const left = ((head.head + 0.5) / facts.heads) * 100;
    tip.style.left = `${left}%`;
    tip.style.top = `${(head.layer / facts.layers) * 100}%`;
    tip.classList.toggle("rs-tip-left", left > 70);
    tip.classList.toggle("rs-tip-right", left < 30);
    tip.classList.toggle("rs-tip-below", head.layer / facts.layers < 0.12);
    marker.style.left = `${share(shown, value) * 100}%`;
  });
  watch(signal, () => {
    const layer = store.activeLayer.value;
    axes.classList.toggle("rs-has-active", layer !== null);
    axes.style.setProperty("--active", String(layer ?? 0));
  });

  const headOf = (event: Event): string | null =>
    (event.target instanceof Element ? event.target.closest<HTMLElement>(".rs-cell")?.dataset["head"] : null) ?? null;
  const pointer = new RestingPlace();
  whenPointedAt(
    grid,
    (event) => {
      const head = headOf(event);
      if (!head) return;
      pointer.enter(head);
      store.hover(head);
    },
    signal,
  );
  grid.addEventListener("pointerleave", () => store.endHover(pointer.leave()), { signal });
  grid.addEventListener(
    "focusin",
    (event) => {
      const head = headOf(event);
      if (!head) return;
      tabStop.move(cells.get(head) ?? null);
      store.hover(head);
    },
    { signal },
  );
  grid.addEventListener("focusout", () => store.hover(null), { signal });
  grid.addEventListener(
    "click",
    (event) => {
      const head = headOf(event);
      if (head) store.togglePin(head);
    },
    { signal },
  );
  grid.addEventListener(
    "keydown",
    (event) => {
      const at = parseHead(headOf(event) ?? "");
      const facts = store.facts.peek();
      if (!at || !facts) return;
      const name = headName(at.layer, at.head);
      if (event.key === "Enter" || event.key === " ") store.togglePin(name);
      else {
        const to = stepAcross(event, { row: at.layer, column: at.head }, facts.layers, facts.heads);
        if (!to) return;
        cells.get(headName(to.row, to.column))?.focus({ preventScroll: true });
        store.headMoves.value += 1;
      }
      event.preventDefault();
    },
    { signal },
  );
}
