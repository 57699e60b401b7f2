// The choice of segments, next to the tokens. It is hidden in the mean over prompts, and if there is nothing to choose.
import { html, nothing, render } from "lit-html";
import { watch } from "../../base/lifetime";
import type { Values } from "../../state/selectable";
import { SEGMENTS, type Store } from "../../state/store";
import { prose } from "../../ui/prose";
import type { SegmentRule } from "../../wire/protocol.gen";

const WORDS: Record<SegmentRule["by"], string> = { turn: "turns", tag: "tags", line: "lines", sentence: "sentences" };
const RANGES = "ranges";

export function mountSegmentChoice(place: HTMLElement, trouble: HTMLElement, store: Store, signal: AbortSignal): void {
  /** The ranges that were given in Python, so that they can be chosen again. */
  let ranges: Extract<Values["segments"], unknown[]> | null = null;
  watch(signal, () => {
    const by = store.segments.value;
    if (Array.isArray(by)) ranges = by;
    const known = store.segmentsKnown.value?.rules ?? [];
    // A saved page has only the segments that were shown.
    const rules = store.isSaved.value ? known.filter((rule) => rule.by === by) : known;
    const chosen = by === null ? "" : Array.isArray(by) ? RANGES : by;
    const unlisted = by !== null && !Array.isArray(by) && !rules.some((rule) => rule.by === by) ? [by] : [];
    place.hidden = store.isMean.value || (by === null && rules.length === 0 && ranges === null);
    if (place.hidden) return render(nothing, place);
    const choose = (event: Event): void => {
      const { value } = event.target as HTMLSelectElement;
      store.segments.value = value === "" ? null : value === RANGES ? ranges : (value as SegmentRule["by"]);
    };
    const option = (value: string, words: string) =>
      html`<option value=${value} ?selected=${value === chosen}>${words}</option>`;
    render(
      html`<select aria-label="How the tokens are folded" .value=${chosen} @change=${choose}
        title="Show the prompt token by token, or folded into segments">
        ${option("", "tokens")}
        ${ranges === null ? nothing : option(RANGES, `your ${ranges.length} segments`)}
        ${rules.map((rule) => option(rule.by, `${rule.count} ${WORDS[rule.by]}`))}
        ${unlisted.map((rule) => option(rule, WORDS[rule]))}
      </select>`,
      place,
    );
  });
  watch(signal, () => {
    const failure = store.segments.value === null ? undefined : store.problems.value.get(SEGMENTS);
    trouble.hidden = failure === undefined;
    render(failure === undefined ? nothing : prose(failure), trouble);
  });
}
