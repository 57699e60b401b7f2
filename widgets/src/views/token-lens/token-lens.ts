// Token lens: the token that the model would predict if it stopped at a point of the stream, for each point and
// position.
import { computed, signal as state, untracked } from "@preact/signals-core";
import { html, render, type TemplateResult } from "lit-html";
import { element, watch } from "../../base/lifetime";
import { divergingGradient, sequentialGradient } from "../../draw/colours";
import { type ReadPicture, shownAs } from "../../export/pictures";
import type { Run } from "../../state/comparison";
import { lensRows, lensTile } from "../../state/questions";
import { lensPoints } from "../../state/scene";
import { targetKey } from "../../state/target";
import { lensTiles } from "../../state/view-questions";
import { alignOffer } from "../../ui/align-offer";
import { mountCaption, mountTrouble } from "../../ui/caption";
import { readInPlace, transportSwitch } from "../../ui/lens-transport";
import type { LensCell } from "../../wire/protocol.gen";
import type { AttentionRoom } from "../attention/attention-room";
import type { TabView } from "../tab-view";
import { type CellPlace, mountLensGrid } from "./lens-grid";
import { type LensReading, mountReading } from "./lens-reading";
import { difference, MAX_RANK, runsSentence, written } from "./lens-runs";
import { type LensSelection, LensTiles } from "./lens-tiles";
import { answerName, cellSentence, probability } from "./lens-words";
import { TOKEN_LENS } from "./token-lens-export";

export const tokenLens: TabView = {
  name: "Token lens",
  tip: "The likeliest tokens at each layer and position",
  chapter: (store) => (store.facts.peek()?.lens ? "lenses" : "mathematics"),
  requests: (scene) => lensTiles(scene, lensRows(scene.shown, scene.points)),
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
  const cursor = state<CellPlace | null>(null);
  const tiles = new LensTiles(store, client, signal);

  const rowPoints = computed(() => lensRows(store.shown, lensPoints(store)));
  /** The labels as JSON, so that a new reply with the same points causes no update. */
  const labels = computed(() => JSON.stringify(rowPoints.value.map(({ label }) => label)));
  const points = computed(() => JSON.parse(labels.value) as string[]);
  const positions = computed(() => store.facts.value?.positions ?? 0);
  const against = computed(() => store.against.value);
  /** Which run the cells show, or the difference of both. */
  const run = computed<Run>(() => (against.value === null ? "first" : store.run.value));
  const key = computed(() => {
    const two = run.value === "first" ? "" : `${store.runs.otherKey.value} ${JSON.stringify(against.value)}`;
    const lens = store.lensTransport.value;
    return `${store.dataKey.value} ${targetKey(store.target.value)} ${store.prompt.value} ${lens} ${two}`;
  });

  const caption = element("p", "rs-caption");
  const box = element("div", "rs-lens-box");
  const reading = element("div", "rs-lens-reading", { role: "group", "aria-label": "Likeliest tokens" });
  const picture = element("div", "rs-lens-view", {}, box, reading);
  const trouble = element("p", "rs-view-trouble", { role: "note" });
  parent.append(caption, element("div", "rs-view-place", {}, picture, trouble));

  /** The largest difference that was received: the colours of the differences end there. */
  const limit = computed(() => {
    void tiles.version.value;
    if (run.value !== "difference") return 0;
    const all = points.value.flatMap((_, row) =>
      Array.from({ length: positions.value }, (_, column) => tiles.cell(points.value, row, column)),
    );
    return Math.max(0, ...all.map((both) => (both?.isCurrent ? Math.abs(difference(both) ?? 0) : 0)));
  });
  const grid = { tiles, points, positions, inSight, cursor, run, limit };
  const visibleCells = mountLensGrid(box, store, grid, signal);
  const visibleKey = computed(() => JSON.stringify(visibleCells.value));
  watch(signal, () => {
    void [visibleKey.value, store.answersAgain.value];
    const about = {
      target: store.target.peek(),
      prompt: store.prompt.value,
      against: against.value,
      run: run.value,
      transport: store.lensTransport.value,
    };
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
    () => alignOffer(store),
  );
  watch(signal, () => void picture.classList.toggle("rs-busy", tiles.waiting.value));
  mountCaption(caption, store, signal, () => {
    void tiles.version.value;
    const mean = store.isMean.value ? " Probabilities are the mean over the prompts." : "";
    const answer = answerName(store);
    if (run.value === "difference" && answer !== null)
      return {
        words:
          `The probability of ${answer} if the model stopped at this point ↓, at each position →: B − A, ends at ` +
          `±${probability(limit.value)}. Underlined: the likeliest token differs.${mean}`,
        notes: tiles.notes,
      };
    const read = readInPlace(store);
    const place = read === null ? "" : ` Transported: ${read}.`;
    const marks = answer === null ? "" : ` The small number is the rank of ${answer}, up to ${MAX_RANK}.`;
    return {
      words:
        `${run.value === "first" ? "The" : "In B, the"} likeliest next token ` +
        (read === null ? "if the model stopped at this point ↓, " : "by the lens at this point ↓, ") +
        `at each position →; the norm is recomputed there.${place}${marks}${mean}`,
      notes: tiles.notes,
    };
  });
  const scale = (): TemplateResult => {
    const theme = store.theme.value;
    if (run.value !== "difference")
      return html`<div class="rs-scale" role="img" aria-label="colours: probability from 0 to 1">0<i
          style="background-image:${sequentialGradient(theme)}"></i>1</div>`;
    const [low, high] = [-limit.value, limit.value].map(written);
    const gradient = divergingGradient(theme).replace("to top", "to right");
    return html`<div class="rs-scale" role="img" aria-label="colours: difference from ${low} to ${high}">${low}<i
        style="background-image:${gradient}"></i>${high}</div>`;
  };
  watch(signal, () => {
    render(
      html`${scale()}${transportSwitch(store)}
        <div class="rs-switch" role="group" aria-label="Points of the token lens">
          ${(["layers", "points"] as const).map(
            (rows) => html`<button type="button" aria-pressed=${store.lensRows.value === rows}
                ?disabled=${rows === "points" && store.lensTransport.value === "transported"}
                title=${
                  rows === "points"
                    ? "Also the point after each layer’s attention"
                    : "One point for each layer, and the last point"
                }
            @click=${() => (store.lensRows.value = rows)}>${rows === "points" ? "with mid" : "layers"}</button>`,
          )}
        </div>`,
      controls,
    );
  });

  const readAt = (place: CellPlace | null): LensReading | null => {
    void tiles.version.value;
    const loaded = place && tiles.cell(points.value, place.row, place.column);
    const point = place && rowPoints.peek()[place.row];
    if (!loaded || !place || !point) return null;
    const { first, second } = loaded;
    const at = { point, position: place.column };
    if (!second || run.value === "first") return { cell: first, ...at, ...(run.value === "first" ? {} : { run: "A" }) };
    return run.value === "second" ? { cell: second, ...at, run: "B" } : { cell: first, ...at, second };
  };
  // The cell that is read if no cell is active: the last point at the destination.
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
    const both = place && tiles.cell(points.value, place.row, place.column);
    const ofBoth = read && both && runsSentence(store, both, read.point, read.position, run.value);
    const sentence = read && (ofBoth ?? cellSentence(store, read.cell, read.point, read.position));
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
    const currentCell = (row: number, column: number, which: "first" | "second"): LensCell | null => {
      const loaded = tiles.cell(points.value, row, column);
      return loaded?.isCurrent ? (loaded[which] ?? null) : null;
    };
    const rows = Array.from({ length: Math.max(0, bottom - top) }, (_, i) => top + i);
    const columns = Array.from({ length: Math.max(0, right - left) }, (_, i) => left + i);
    const of = (which: "first" | "second"): (LensCell | null)[][] =>
      rows.map((row) => columns.map((column) => currentCell(row, column, which)));
    const cells = of("first");
    const read = readInPlace(store);
    return cells.flat().some((cell) => cell !== null)
      ? shownAs(TOKEN_LENS, {
          picture: "token-lens",
          points: rows.map((row) => points.value[row] ?? ""),
          start: left,
          cells,
          notes: tiles.notes,
          ...(read === null ? {} : { lens: read }),
          ...(run.value === "first" ? {} : { compared: { run: run.value, cells: of("second") } }),
        })
      : null;
  };
}
