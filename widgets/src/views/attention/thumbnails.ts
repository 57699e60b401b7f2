// Thumbnails of all heads, a group for each layer. When the user points at a thumbnail, the card next to the thumbnails
// shows the head in a larger size. A click pins the head.
import { computed, type ReadonlySignal, untracked } from "@preact/signals-core";
import { render } from "lit-html";
import { headName, parseHead, side, signed, vanishes } from "../../base/format";
import { legibleSentence } from "../../base/legible";
import { element, watch } from "../../base/lifetime";
import { paintThumbnail } from "../../draw/thumbnail";
import { prose } from "../../ui/prose";
import { TabStop } from "../../ui/roving";
import type { AttentionRoom } from "./attention-room";
import { colourOf, written } from "./attention-scale";
import { type LayerOfThumbnails, largest, ThumbnailStore } from "./thumbnail-data";

interface Thumb {
  node: HTMLElement;
  canvas: HTMLCanvasElement;
  value: HTMLElement;
}

export function mountThumbnails(
  box: HTMLElement,
  room: AttentionRoom,
  inSight: ReadonlySignal<boolean>,
  signal: AbortSignal,
): void {
  const { store, limits } = room;
  const data = new ThumbnailStore(room, inSight, signal);
  const trouble = element("p", "rs-refusal", { hidden: "" });
  const thumbs = new Map<string, Thumb>();
  const painted = new Map<number, { from: LayerOfThumbnails; style: string }>();
  const titles: HTMLElement[] = [];
  const tabStop = new TabStop();

  watch(signal, () => {
    trouble.hidden = data.trouble.value === null;
    render(prose(data.trouble.value ?? ""), trouble);
  });

  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries)
        data.see(Number((target as HTMLElement).dataset["layer"]), isIntersecting);
    },
    { root: box, rootMargin: "40px" },
  );
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });

  // The thumbnails are created when the view is first visible, and again for a model of another shape.
  const shape = computed(() =>
    inSight.value ? `${store.facts.value?.layers ?? 0}x${store.facts.value?.heads ?? 0}` : null,
  );
  let builtFor = "";
  watch(signal, () => {
    if (shape.value === null || shape.value === builtFor) return;
    builtFor = shape.value;
    const [layers = 0, heads = 0] = builtFor.split("x").map(Number);
    untracked(() => build(layers, heads));
  });

  function build(layers: number, heads: number): void {
    observer.disconnect();
    thumbs.clear();
    painted.clear();
    titles.length = 0;
    box.replaceChildren(trouble);
    box.style.setProperty("--heads", String(Math.max(1, heads)));
    for (let layer = 0; layer < layers; layer += 1) {
      const title = element("span", "rs-thumb-title", {}, `layer ${layer}`);
      const group = element(
        "div",
        "rs-thumb-layer",
        { role: "group", "aria-label": `layer ${layer}`, "data-layer": String(layer) },
        title,
      );
      titles.push(title);
      for (let head = 0; head < heads; head += 1) {
        const name = headName(layer, head);
        const canvas = element("canvas", "", { width: "1", height: "1" });
        const value = element("span", "rs-number");
        const node = element(
          "button",
          "rs-thumb",
          {
            type: "button",
            tabindex: "-1",
            "aria-pressed": "false",
            "aria-label": `${name}, attention thumbnail`,
            "data-head": name,
          },
          canvas,
          element(
            "span",
            "rs-thumb-words",
            { "aria-hidden": "true" },
            element("span", "rs-name", { "data-text": `H${head}` }),
            value,
          ),
        );
        thumbs.set(name, { node, canvas, value });
        group.append(node);
      }
      box.append(group);
      observer.observe(group);
    }
    tabStop.move(thumbs.get(headName(0, 0))?.node ?? null);
  }

  // The limit of the shared colour scale.
  watch(signal, () => {
    const limit = data.limit.value;
    if (!inSight.value) return limits.forget("thumbnails");
    // Until thumbnails of this selection arrive, the earlier ones stay on screen with their limit.
    if (limit) limits.report("thumbnails", limit.weighting, limit.largest);
  });
  watch(signal, () => {
    void shape.value;
    const theme = store.theme.value;
    for (const [layer, from] of data.layers.value) {
      const { weighting, side, cells, limits: headLimits } = from;
      const scaleLimit = (head: number): number => limits.of(weighting, headLimits[head] ?? 0);
      const style = `${theme} ${store.ownRange.value} ${scaleLimit(0)}`;
      const before = painted.get(layer);
      if (before?.from === from && before.style === style) continue;
      painted.set(layer, { from, style });
      const title = titles[layer];
      if (title) title.textContent = title.title = legibleSentence([`layer ${layer}`, ...from.notes].join(" · "));
      headLimits.forEach((limit, head) => {
        const name = headName(layer, head);
        const thumb = thumbs.get(name);
        if (!thumb) return;
        paintThumbnail(
          thumb.canvas,
          cells.subarray(head * side * side, (head + 1) * side * side),
          side,
          limit,
          (value) => colourOf(weighting, value, scaleLimit(head), theme),
        );
        thumb.node.setAttribute(
          "aria-label",
          `${name}, attention thumbnail, ` +
            `${
              Number.isFinite(limit)
                ? `largest ${written(weighting, largest(from, head), store.largest.value)}`
                : store.isAbsent(name)
                  ? "no attention"
                  : "not known"
            }`,
        );
      });
    }
  });
  // The contribution of each head.
  watch(signal, () => {
    if (shape.value === null) return;
    const isOutdated = store.problems.value.has("heads");
    for (const [name, { node, value }] of thumbs) {
      const contribution = isOutdated ? null : store.headValue(name);
      // There is no room for the digits of a very small number, so 0 is written.
      const rounded = contribution === null || vanishes(contribution, store.largest.value) ? 0 : contribution;
      const written = contribution === null ? "" : signed(rounded, store.largest.value);
      value.dataset["text"] = written;
      value.className = `rs-number ${side(written)}`;
      node.toggleAttribute("disabled", store.isAbsent(name));
    }
  });
  watch(signal, () => {
    void shape.value;
    const pinned = new Set(store.heads.value);
    for (const [name, { node }] of thumbs)
      if ((node.getAttribute("aria-pressed") === "true") !== pinned.has(name))
        node.setAttribute("aria-pressed", String(pinned.has(name)));
  });
  let hovered: HTMLElement | null = null;
  watch(signal, () => {
    void shape.value;
    const node = thumbs.get(store.hoveredHead.value ?? "")?.node ?? null;
    hovered?.classList.remove("rs-hover");
    node?.classList.add("rs-hover");
    hovered = node;
  });

  const headOf = (event: Event): string | null =>
    event.target instanceof Element ? (event.target.closest<HTMLElement>(".rs-thumb")?.dataset["head"] ?? null) : null;
  box.addEventListener("pointerover", (event) => store.hover(headOf(event)), { signal });
  box.addEventListener("pointerleave", () => store.hover(null), { signal });
  box.addEventListener(
    "focusin",
    (event) => {
      const name = headOf(event);
      if (!name) return;
      tabStop.move(thumbs.get(name)?.node ?? null);
      store.hover(name);
    },
    { signal },
  );
  box.addEventListener("focusout", () => store.hover(null), { signal });
  box.addEventListener(
    "click",
    (event) => {
      const name = headOf(event);
      if (name) store.togglePin(name);
    },
    { signal },
  );
  box.addEventListener(
    "keydown",
    (event) => {
      const current = parseHead(headOf(event) ?? "");
      const facts = store.facts.peek();
      if (!current || !facts) return;
      const to = headAfter(event.key, current.layer, current.head, facts.layers, facts.heads);
      if (to === null) return;
      event.preventDefault();
      thumbs.get(headName(Math.floor(to / facts.heads), to % facts.heads))?.node.focus();
    },
    { signal },
  );
}

/**
 * The index of the head that a key moves to, counted over all layers; null for other keys. Left and right move by one
 * head, also from layer to layer. Up and down move to the head with the same number in the layer above or below.
 */
function headAfter(key: string, layer: number, head: number, layers: number, heads: number): number | null {
  const current = layer * heads + head;
  const last = layers * heads - 1;
  const to = {
    ArrowLeft: current - 1,
    ArrowRight: current + 1,
    ArrowUp: current - heads,
    ArrowDown: current + heads,
    Home: 0,
    End: last,
  }[key];
  if (to === undefined) return null;
  return to < 0 || to > last ? current : to;
}
