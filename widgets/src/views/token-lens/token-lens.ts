// Token lens: the token that the model would predict if it stopped at a point of the stream, for each point and
// position.
import { computed, signal as state, untracked } from "@preact/signals-core";
import { html, render } from "lit-html";
import { element, watch } from "../../base/lifetime";
import { sequentialGradient } from "../../draw/colours";
import { type ReadPicture, shownAs } from "../../export/pictures";
import { lensPoints, lensTile, lensTiles, withoutMid } from "../../state/questions";
import { targetKey } from "../../state/target";
import { mountCaption, mountTrouble } from "../../ui/caption";
import type { LensCell } from "../../wire/protocol.gen";
import type { AttentionRoom } from "../attention/attention-room";
import type { TabView } from "../tab-view";
import { type CellPlace, MAX_RANK, mountLensGrid } from "./lens-grid";
import { type LensReading, mountReading } from "./lens-reading";
import { type LensSelection, LensTiles } from "./lens-tiles";
import { answerName, cellSentence } from "./lens-words";
import { TOKEN_LENS } from "./token-lens-export";

export const tokenLens: TabView = {
  name: "Token lens",
  tip: "The likeliest tokens at each layer and position",
  requests: (scene) => lensTiles(scene, withoutMid(scene.points)),
  options: (scene) => lensTiles(scene, scene.points),
  mount,
};

function mount(
  parent: HTMLElement,
  controls: HTMLElement,
  { store, client }: AttentionRoom,
  signal: AbortSignal,
): ReadPicture {
  const inSight = computed(() => store.tab.value === "token-lens");
  const withMid = state(false);
  const cursor = state<CellPlace | null>(null);
  const tiles = new LensTiles(store, client, signal);

  /** The points of the rows: one for each layer, and the last one. If `withMid`, also the point after each attention. */
  const rowPoints = computed(() => (withMid.value ? lensPoints(store) : withoutMid(lensPoints(store))));
  /** The labels as JSON, so that a new reply with the same points causes no update. */
  const labels = computed(() => JSON.stringify(rowPoints.value.map(({ label }) => label)));
  const points = computed(() => JSON.parse(labels.value) as string[]);
  const positions = computed(() => store.facts.value?.positions ?? 0);
  const key = computed(() => `${store.dataKey.value} ${targetKey(store.target.value)} ${store.prompt.value}`);

  const caption = element("p", "rs-caption");
  const box = element("div", "rs-lens-box");
  const reading = element("div", "rs-lens-reading", { role: "group", "aria-label": "Likeliest tokens" });
  const picture = element("div", "rs-lens-view", {}, box, reading);
  const trouble = element("p", "rs-view-trouble", { role: "note" });
  parent.append(caption, element("div", "rs-view-place", {}, picture, trouble));

  const visibleCells = mountLensGrid(box, store, { tiles, points, positions, inSight, cursor }, signal);
  const visibleKey = computed(() => JSON.stringify(visibleCells.value));
  watch(signal, () => {
    void visibleKey.value;
    const about = { target: store.target.peek(), prompt: store.prompt.value };
    const selection: LensSelection = {
      key: key.value,
      points: points.value,
      positions: positions.value,
      ask: (tile) => lensTile(about, tile),
    };
    const isNeeded = inSight.value && store.settled.value && points.value.length > 0;
    untracked(() => tiles.request(isNeeded ? selection : null, visibleCells.peek()));
  });

  mountTrouble(
    trouble,
    picture,
    signal,
    () => tiles.trouble.value ?? (points.value.length === 0 ? store.reasonNotDrawn("lens") : null),
  );
  watch(signal, () => void picture.classList.toggle("rs-busy", tiles.waiting.value));
  mountCaption(caption, store, signal, () => {
    void tiles.version.value;
    const mean = store.isMean.value ? " Probabilities are the mean over the prompts." : "";
    const answer = answerName(store);
    const marks = answer === null ? "" : ` The small number is the rank of ${answer}, up to ${MAX_RANK}.`;
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
            (all) => html`<button type="button" aria-pressed=${withMid.value === all}
                title=${
                  all ? "Also the point after each layer’s attention" : "One point for each layer, and the last point"
                }
            @click=${() => (withMid.value = all)}>${all ? "with mid" : "layers"}</button>`,
          )}
        </div>`,
      controls,
    );
  });

  const readAt = (place: CellPlace | null): LensReading | null => {
    void tiles.version.value;
    const loaded = place && tiles.cell(points.value, place.row, place.column);
    const point = place && rowPoints.peek()[place.row];
    return loaded && place && point ? { cell: loaded.cell, point, position: place.column } : null;
  };
  // If no cell is active: the last point at the destination.
  const defaultCell = computed<CellPlace>(() => ({
    row: points.value.length - 1,
    column: store.destination.value ?? positions.value - 1,
  }));
  mountReading(reading, store, signal, () =>
    inSight.value ? (readAt(cursor.value) ?? readAt(defaultCell.value)) : null,
  );

  let hadCell = false;
  watch(signal, () => {
    const place = cursor.value;
    const read = readAt(place);
    const sentence = read && cellSentence(store, read.cell, read.point, read.position);
    untracked(() => {
      if (place === null && !hadCell) return;
      hadCell = place !== null;
      store.sentence.value = sentence;
      store.hoveredToken.value = place?.column ?? null;
      store.hoveredLayer.value = read?.point.layer ?? null;
    });
  });
  // Only visible cells can be exported, because only they were requested.
  return () => {
    void tiles.version.value;
    const {
      rows: [top, bottom],
      columns: [left, right],
    } = visibleCells.value;
    const currentCell = (row: number, column: number): LensCell | null => {
      const loaded = tiles.cell(points.value, row, column);
      return loaded?.isCurrent ? loaded.cell : null;
    };
    const rows = Array.from({ length: Math.max(0, bottom - top) }, (_, i) => top + i);
    const columns = Array.from({ length: Math.max(0, right - left) }, (_, i) => left + i);
    const cells = rows.map((row) => columns.map((column) => currentCell(row, column)));
    return cells.flat().some((cell) => cell !== null)
      ? shownAs(TOKEN_LENS, {
          picture: "token-lens",
          points: rows.map((row) => points.value[row] ?? ""),
          start: left,
          cells,
        })
      : null;
  };
}
