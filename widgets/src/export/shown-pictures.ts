// The pictures on screen, as plain data, and the words that all their captions share.

import { headName, parseHead, plural, visible } from "../base/format";
import { shown } from "../base/legible";
import { limitOf } from "../draw/colours";
import { runNames } from "../state/comparison";
import { isEstimated, valuesOf } from "../state/effects";
import { holdOf } from "../state/held-scale";
import { addedRange, type MapPicture, ofRun, whyEmpty } from "../state/map-picture";
import { mostDifferent, rank } from "../state/ranked";
import { type Chart, COMPARED } from "../state/runs";
import { type Attribution, FEEDS, NEURONS, SCORES, type Store } from "../state/store";
import { endWords, inView, isInside, isNext, label, nextWords, shared } from "../state/target";
import { feedsWords, plainWords, stepWords } from "../state/trail-words";
import { warningWords } from "../state/warnings";
import { readInPlace } from "../ui/lens-transport";
import { componentsOf } from "../wire/components";
import { HEADS, LAYERS, LENS, RANKING } from "./charts";
import {
  type HeadsPicture,
  offered,
  type Row,
  type Setting,
  type ShownPicture,
  shownAs,
  type Valued,
} from "./pictures";

export function shownPictures(store: Store): ShownPicture[] {
  const pictures: ShownPicture[] = [];
  const facts = store.facts.value;
  if (!facts) return pictures;
  // A refused picture is not on screen, though the store may still have the data of an earlier selection.
  const kept = <T>(lane: string, data: T | null): T | null => (store.problems.value.has(lane) ? null : data);
  const lens = kept("lens", store.lens.value);
  if (lens) {
    // The constant is added, as in the chart, so that the last point is the value of the target.
    const compared = withRuns(store, "lens", valued(lens));
    const points = compared.map((point) => ({ ...point, value: Math.fround(point.value + lens.reply.constant) }));
    const read = readInPlace(store);
    const transported = read === null ? {} : { lens: read };
    pictures.push(shownAs(LENS, { picture: "lens", points, norm: store.norm.value, ...transported }));
  }
  const layers = kept("layers", store.layerRows.value);
  if (layers) pictures.push(shownAs(LAYERS, { picture: "layers", rows: withRuns(store, "layers", valued(layers)) }));
  const count = facts.layers * facts.heads;
  const isOther = store.runs.shown.value !== null && store.runs.shown.value !== "first";
  const rows = kept("heads", isOther ? kept(COMPARED.heads, store.runs.rows.value) : store.headRows.value);
  const named = rows?.reply.refusal ? null : rows;
  const { feeds } = store;
  const caused = causedIn(store);
  const feeding = kept(FEEDS, store.feeding.value);
  const fed = feeds.value && feeding?.feeds === feeds.value ? feeding.rows : null;
  if (caused) pictures.push(shownAs(HEADS, caused));
  else if (named && store.effectShown.value === "direct" && (feeds.value === null || fed)) {
    const { rows, std } = fed ?? named;
    const scores = kept(SCORES, store.scores.value);
    const score =
      scores && scores.reply.score === store.score.value
        ? { ...scores.reply, name: scores.reply.score, values: scores.values }
        : null;
    pictures.push(
      shownAs(HEADS, {
        picture: "heads",
        layers: facts.layers,
        heads: facts.heads,
        values: rows.slice(0, count),
        std: std?.slice(0, count) ?? null,
        score,
        pinned: store.heads.value,
        ...reasonsEmpty(store, score?.values ?? rows, { score: score && scores ? scores.reply.score : null }),
        ...(feeds.value ? { feeds: feedsWords(store, feeds.value) } : {}),
        ...(feeds.value || score ? { limit: addedRange(store, limitOf(rows.subarray(0, count))).high } : onMap(store)),
      }),
    );
  }
  const effect = caused?.measured;
  const ranking =
    store.ranking.value === "heads"
      ? store.effectShown.value !== "direct"
        ? caused && topEffects(store, caused)
        : named
          ? topHeads(store, named, facts.heads, count)
          : null
      : kept(NEURONS, neurons(store));
  if (ranking)
    pictures.push(
      shownAs(RANKING, {
        picture: "ranking",
        of: store.ranking.value,
        rows: ranking,
        ...(effect && store.ranking.value === "heads" ? { effect } : {}),
      }),
    );
  const lower = offered(store, store.tab.value);
  if (lower) pictures.push(lower);
  return pictures;
}

/** The head map, if it shows an effect for which the model is run, and the kernel has sent values; else null. */
function causedIn(store: Store): HeadsPicture | null {
  const { layers = 0, heads = 0 } = store.facts.value ?? {};
  const { found, refusal } = store.effects.heads;
  const effect = store.effectShown.value;
  if (effect === "direct" || !found.value || refusal.value !== null) return null;
  const measured = { effect, found: found.value };
  const values = valuesOf(found.value, effect);
  const limit = store.effects.heads.reach(effect, limitOf(values));
  const held = holdOf(store, "heads").range(`heads ${effect}`, { low: -limit, high: limit });
  return {
    picture: "heads",
    layers,
    heads,
    values,
    std: null,
    score: null,
    pinned: store.heads.value,
    ...reasonsEmpty(store, values, { measured }),
    limit: held.high,
    measured,
  };
}

/** Why cells of the head map are empty, for its caption. */
function reasonsEmpty(
  store: Store,
  values: Float32Array,
  { score = null, measured = null }: Partial<Pick<MapPicture, "score" | "measured">>,
): Pick<HeadsPicture, "empty"> {
  const { layers = 0, heads = 0 } = store.facts.value ?? {};
  const empty = [...values.subarray(0, layers * heads).keys()].filter((at) => Number.isNaN(values[at]));
  const reasons = empty.map((at) => whyEmpty(store, { score, measured }, headName(Math.floor(at / heads), at % heads)));
  if (reasons.length === 0) return {};
  return { empty: [...new Set(reasons)].map((why) => (why === "no attention" ? "no attention in this layer" : why)) };
}

function topEffects(store: Store, { values, heads, measured }: HeadsPicture): Valued[] {
  const { plus, minus } = rank(values, heads, store.topK.value);
  return [...plus, ...minus].map(({ name, value }) => {
    const head = parseHead(name);
    const at = head ? head.layer * heads + head.head : -1;
    return { name, value, std: null, isEstimate: !!measured && isEstimated(measured.found, measured.effect, at) };
  });
}

/** The scale of the map, and the values of both compared runs. */
function onMap(store: Store): Pick<HeadsPicture, "limit" | "runs"> {
  const picture = ofRun(store);
  return picture ? { limit: picture.high, ...(picture.runs ? { runs: picture.runs } : {}) } : {};
}

/** The rows, each with its values in both compared runs. For points of the lens, each run's constant is added. */
function withRuns(store: Store, chart: Chart, rows: Row[]): Row[] {
  const compared = store.runs.reasonNotDrawn(chart) === null ? store.runs.of(chart) : null;
  if (!compared || compared.second.rows.length !== rows.length) return rows;
  const { first, second } = compared;
  const plus = (run: Attribution): number => (compared.by === "accumulated" ? run.reply.constant : 0);
  return rows.map((row, at) => ({
    ...row,
    runs: { first: (first.rows[at] ?? NaN) + plus(first), second: (second.rows[at] ?? NaN) + plus(second) },
  }));
}

function valued({ reply, rows, std }: Attribution): Row[] {
  return componentsOf(reply.components).map((component, i) => ({
    name: component.label,
    component,
    value: rows[i] ?? NaN,
    std: std?.[i] ?? null,
  }));
}

function topHeads(store: Store, { rows, std }: Attribution, heads: number, count: number): Valued[] {
  const compared = store.runs.shown.value === "difference" ? store.runs.heads.value : null;
  if (compared) {
    const mapped = (run: Attribution): Float32Array => run.rows.subarray(0, count);
    const runs = {
      first: mapped(compared.first),
      second: mapped(compared.second),
      difference: rows.subarray(0, count),
    };
    const pairs = mostDifferent(runs, heads, 2 * store.topK.value);
    return pairs.map(({ name, value, first, second }) => ({ name, value, std: null, runs: { first, second } }));
  }
  const { plus, minus } = rank(rows.subarray(0, count), heads, store.topK.value);
  return [...plus, ...minus].map(({ name, value }) => {
    const head = parseHead(name);
    return { name, value, std: head && std ? (std[head.layer * heads + head.head] ?? null) : null };
  });
}

function neurons(store: Store): Valued[] | null {
  const found = store.neurons.value;
  const rows = componentsOf(found?.reply.components);
  return found && rows.map(({ label }, i) => ({ name: label, value: found.values[i] ?? NaN, std: null }));
}

export function settingOf(store: Store): Setting {
  const facts = store.facts.value;
  const prompt = store.prompt.value;
  const destination = store.destination.value;
  const prompts = store.isMean.value ? (facts?.prompts ?? 1) : 1;
  const which =
    prompts > 1 ? [`mean of ${plural(prompts, "prompt")}`] : (facts?.prompts ?? 1) > 1 ? [`prompt ${prompt ?? 0}`] : [];
  const compared = comparedIn(store);
  const names = compared && { A: compared.first, B: compared.second };
  const averaged = prompts > 1 ? (store.runs.rows.value?.reply.prompts ?? prompts) : 1;
  const without = averaged < prompts ? `, padding in ${prompts - averaged} of ${prompts} prompts` : "";
  const place =
    destination === null
      ? `at ${endWords(store.target.value)}`
      : `at “${store.tokenName(destination)}” (position ${destination}${without})`;
  return {
    cache: store.shownName.value || "cache",
    quantity: store.quantity.value,
    source: [
      ...(facts?.model ? [shown(facts.model)] : []),
      ...which,
      ...store.warnings.value.map((warning) => `warning: ${warningWords(warning, names)}`),
    ],
    target: targetWords(store),
    place,
    tokens: store.tokens.value.map(({ text }, at) => ({ text, shown: store.tokenText(at), mark: store.tokenMark(at) })),
    destination,
    layers: facts?.layers ?? 0,
    prompts: averaged,
    compared,
  };
}

function comparedIn(store: Store): Setting["compared"] {
  const against = store.against.value;
  if (against === null) return null;
  // Before a reply about run B, only effects that put in B's activations concern B.
  const isPutIn = store.effectShown.value !== "direct" && store.effects.heads.found.value?.isPutIn === true;
  const run = store.runs.shown.value ?? (isPutIn ? "first" : null);
  if (run === null) return null;
  const [first, second] = runNames(store.shownName.value, store.prompt.value, against).map((name) => shown(name));
  return { first: first ?? "", second: second ?? "", run };
}

/** The parts of a file name: the cache, the target, the prompt, and the other run if two are compared. */
export function fileParts(store: Store): string[] {
  const target = store.target.value;
  const prompts = store.facts.value?.prompts ?? 1;
  const contrasts = inView(target, store.prompt.value);
  const sides = (["answer", "distractor"] as const).map((side) => shared(contrasts, side));
  const words = isInside(target)
    ? [targetWords(store)]
    : target.direction
      ? [target.direction]
      : isNext(target)
        ? [nextWords(target)]
        : sides.includes(null)
          ? ["own answers"]
          : sides.flatMap((tokens) => tokens ?? []).map(({ text }) => text.trim());
  return [
    store.shownName.value || "cache",
    words.join("-"),
    store.isMean.value ? `mean of ${prompts}` : `prompt${store.prompt.value ?? 0}`,
    ...againstIn(store),
  ];
}

function againstIn(store: Store): string[] {
  const { cache = null, prompt = null } = store.against.value ?? {};
  const parts = [cache, prompt === null ? null : `prompt${prompt}`].filter((part) => part !== null);
  return parts.length > 0 ? [`against ${parts.join(" ")}`] : [];
}

function targetWords(store: Store): string {
  const target = store.target.value;
  if (isInside(target)) return plainWords(stepWords(store, { target, position: store.chosenPosition.value }));
  if (isNext(target)) return nextWords(target);
  if (target.direction) return `direction “${visible(target.direction)}”`;
  const contrasts = inView(target, store.prompt.value);
  const [answer, distractor] = [shared(contrasts, "answer"), shared(contrasts, "distractor")];
  if (!answer || !distractor) return "each prompt’s own answer";
  const quoted = answer.length > 0 ? `“${label(answer)}”` : "nothing";
  return distractor.length > 0 ? `${quoted} minus “${label(distractor)}”` : quoted;
}
