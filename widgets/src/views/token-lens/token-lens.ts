// Token lens: what the model would say if it stopped at each point of the stream, at each position.
import { computed, signal as state, untracked } from "@preact/signals-core";
import { html, render } from "lit-html";
import { element, watch } from "../../base/lifetime";
import { sequentialGradient } from "../../draw/colours";
import { offer } from "../../export/pictures";
import { lensPoints, lensTile, withoutMid } from "../../state/questions";
import type { Store } from "../../state/store";
import { targetKey } from "../../state/target";
import { mountCaption, mountTrouble } from "../../ui/caption";
import type { Client } from "../../wire/client";
import type { LensCell } from "../../wire/protocol.gen";
import { type At, MARKED, mountLensGrid } from "./lens-grid";
import { mountReading, type Read } from "./lens-reading";
import { LensTiles, type Question } from "./lens-tiles";
import { answerName, cellSentence } from "./lens-words";

export function mountTokenLens(
  parent: HTMLElement,
  controls: HTMLElement,
  store: Store,
  client: Client,
  signal: AbortSignal,
): void {
  const inSight = computed(() => store.tab.value === "token-lens");
  const mid = state(false);
  const cursor = state<At | null>(null);
  const tiles = new LensTiles(store, client, signal);

  /** One point for each layer, and the last point; with mid also the point after each attention. */
  const wanted = computed(() => (mid.value ? lensPoints(store) : withoutMid(lensPoints(store))));
  /** The labels as one text, so that another reply with the same points changes nothing. */
  const labels = computed(() => JSON.stringify(wanted.value.map(({ label }) => label)));
  const points = computed(() => JSON.parse(labels.value) as string[]);
  const positions = computed(() => store.facts.value?.positions ?? 0);
  const key = computed(() => `${store.source.value} ${targetKey(store.target.value)} ${store.prompt.value}`);

  const caption = element("p", "rs-caption");
  const box = element("div", "rs-lens-box");
  const reading = element("div", "rs-lens-reading", { role: "group", "aria-label": "Likeliest tokens" });
  const picture = element("div", "rs-lens-view", {}, box, reading);
  const trouble = element("p", "rs-view-trouble", { role: "note" });
  parent.append(caption, element("div", "rs-view-place", {}, picture, trouble));

  const window = mountLensGrid(box, store, { tiles, points, positions, inSight, cursor }, signal);
  const inView = computed(() => JSON.stringify(window.value));
  watch(signal, () => {
    void inView.value;
    const asked = { target: store.target.peek(), prompt: store.prompt.value };
    const question: Question = {
      key: key.value,
      points: points.value,
      positions: positions.value,
      ask: (tile) => lensTile(asked, tile),
    };
    const ask = inSight.value && store.settled.value && points.value.length > 0;
    untracked(() => tiles.look(ask ? question : null, window.peek()));
  });

  // Only the visible cells: the others have not been requested.
  offer(store, "token-lens", () => {
    void tiles.version.value;
    const {
      rows: [top, bottom],
      columns: [left, right],
    } = window.value;
    const fresh = (found: ReturnType<LensTiles["cell"]>): LensCell | null => (found?.fresh ? found.cell : null);
    const rows = Array.from({ length: Math.max(0, bottom - top) }, (_, i) => top + i);
    const columns = Array.from({ length: Math.max(0, right - left) }, (_, i) => left + i);
    const cells = rows.map((row) => columns.map((column) => fresh(tiles.cell(points.value, row, column))));
    return cells.flat().some((cell) => cell !== null)
      ? { picture: "token-lens", points: rows.map((row) => points.value[row] ?? ""), start: left, cells }
      : null;
  });
  mountTrouble(
    trouble,
    picture,
    signal,
    () => tiles.trouble.value ?? (points.value.length === 0 ? store.why("lens") : null),
  );
  watch(signal, () => void picture.classList.toggle("rs-busy", tiles.waiting.value));
  mountCaption(caption, store, signal, () => {
    void tiles.version.value;
    const mean = store.isMean.value ? " Probabilities are the mean over the prompts." : "";
    const answer = answerName(store);
    const marks = answer === null ? "" : ` The small number is the rank of ${answer}, up to ${MARKED}.`;
    return {
      words:
        "The likeliest next token if the model stopped at this point ↓, at each position →; the norm is " +
        `recomputed there.${marks}${mean}`,
      notes: tiles.notes,
    };
  });
  watch(signal, () => {
    render(
      html`<div class="rs-scale" role="img" aria-label="colours: probability from 0 to 1">0<i
          style="background-image:${sequentialGradient(store.theme.value)}"></i>1</div>
        <div class="rs-switch" role="group" aria-label="Points of the token lens">
          ${[false, true].map(
            (on) => html`<button type="button" aria-pressed=${mid.value === on}
                title=${
                  on ? "Also the point after each layer’s attention" : "One point for each layer, and the last point"
                }
            @click=${() => (mid.value = on)}>${on ? "with mid" : "layers"}</button>`,
          )}
        </div>`,
      controls,
    );
  });

  const readAt = (at: At | null): Read | null => {
    void tiles.version.value;
    const found = at && tiles.cell(points.value, at.row, at.column);
    const point = at && wanted.peek()[at.row];
    return found && at && point ? { cell: found.cell, point, position: at.column } : null;
  };
  // Without a pointer: the last point at the destination.
  const rest = computed<At>(() => ({
    row: points.value.length - 1,
    column: store.destination.value ?? positions.value - 1,
  }));
  mountReading(reading, store, signal, () => (inSight.value ? (readAt(cursor.value) ?? readAt(rest.value)) : null));

  let spoke = false;
  watch(signal, () => {
    const at = cursor.value;
    const read = readAt(at);
    const sentence = read && cellSentence(store, read.cell, read.point, read.position);
    untracked(() => {
      if (at === null && !spoke) return;
      spoke = at !== null;
      store.sentence.value = sentence;
      store.hoveredToken.value = at?.column ?? null;
      store.hoveredLayer.value = read?.point.layer ?? null;
    });
  });
}
