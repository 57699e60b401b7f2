// The spread over the prompts: a bar for each prompt. It shows the contribution of the head in focus, or the target.
// A click on a prompt selects it.
import { computed, signal as state } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { signed } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { limitOf } from "../../draw/colours";
import { type ReadPicture, shownAs } from "../../export/pictures";
import { ofEachPrompt, tokens } from "../../state/questions";
import { quantity } from "../../state/target";
import { mountCaption, mountTrouble } from "../../ui/caption";
import type { AttentionRoom } from "../attention/attention-room";
import { plusMinus } from "../heads/spread";
import type { TabView } from "../tab-view";
import { mountPromptList } from "./prompt-list";
import { type PromptSpread, promptSpread } from "./prompt-spread";
import { PromptTexts } from "./prompt-texts";
import { PROMPTS } from "./prompts-export";

export const prompts: TabView = {
  name: "Prompts",
  tip: "How the values vary from prompt to prompt",
  chapter: () => "panel",
  isThere: ({ facts }) => (facts.value?.prompts ?? 1) > 1,
  requests: ({ shown, facts }) =>
    facts.prompts > 1 ? (["accumulated", "head"] as const).map((by) => ofEachPrompt(shown, by)) : [],
  options: ({ facts }) => Array.from({ length: facts.prompts }, (_, prompt) => tokens({ prompt })),
  mount,
};

function mount(
  parent: HTMLElement,
  controls: HTMLElement,
  { store, client }: AttentionRoom,
  signal: AbortSignal,
): ReadPicture {
  /** Whether the bars show the target, although a head is in focus. */
  const showsTarget = state(false);
  const isSorted = state(false);
  const head = computed(() => (showsTarget.value ? null : store.preview.value));
  const { spread, trouble, waiting } = promptSpread(store, client, head, signal);
  const inSight = computed(() => store.tab.value === "prompts");

  const caption = element("p", "rs-caption");
  const picture = element("div", "rs-prompt-view");
  const refusal = element("p", "rs-view-trouble", { role: "note" });
  parent.append(caption, element("div", "rs-view-place", {}, picture, refusal));
  mountTrouble(refusal, picture, signal, () => trouble.value ?? tooMany(spread.value));
  watch(signal, () => void picture.classList.toggle("rs-waiting", waiting.value));
  mountCaption(caption, store, signal, () => ({
    words: captionOf(spread.value, quantity(store.target.value, null)),
    notes: [],
  }));

  watch(signal, () => {
    const focus = store.preview.value;
    const targetName = quantity(store.target.value, null);
    render(
      html`<div class="rs-switch" role="group" aria-label="What the bars show">
          <button type="button" aria-pressed=${head.value === null}
              @click=${() => (showsTarget.value = true)}>${targetName}</button>
          ${
            focus === null
              ? nothing
              : html`<button type="button" class="rs-name" aria-pressed=${head.value !== null}
              title="The head in focus: the one pointed at last" @click=${() =>
                (showsTarget.value = false)}>${focus}</button>`
          }
        </div>
        <div class="rs-switch" role="group" aria-label="Order of the prompts">
          ${[false, true].map(
            (byValue) => html`<button type="button" aria-pressed=${isSorted.value === byValue}
              @click=${() => (isSorted.value = byValue)}>${byValue ? "by value" : "in order"}</button>`,
          )}
        </div>`,
      controls,
    );
  });

  /** The prompt number of each row. */
  const order = computed(() => {
    const each = spread.value?.each ?? new Float32Array(0);
    const prompts = [...each.keys()];
    const value = (prompt: number): number => each[prompt] ?? NaN;
    return isSorted.value
      ? prompts.sort((a, b) => value(b) - value(a) || Number(Number.isNaN(value(a))) - Number(Number.isNaN(value(b))))
      : prompts;
  });
  mountPromptList(picture, store, { spread, order, texts: new PromptTexts(client, signal), inSight }, signal);
  return () => {
    const shown = trouble.value !== null || waiting.peek() ? null : spread.value;
    const each = shown?.each;
    if (!shown || !each) return null;
    const rows = order.value.map((prompt) => ({ prompt, value: each[prompt] ?? NaN }));
    return shownAs(PROMPTS, {
      picture: "prompts",
      head: shown.head,
      quantity: quantity(store.target.value, null),
      mean: shown.mean,
      std: shown.std,
      rows,
    });
  };
}

/** The mean and the standard deviation: "+1.73 ± 0.41". */
function spreadWords({ mean, std, each }: PromptSpread): string {
  const largest = limitOf(each ?? [mean]);
  return `${signed(mean, largest)} ${plusMinus(std, largest)}`;
}

function tooMany(spread: PromptSpread | null): string | null {
  if (!spread || spread.each) return null;
  return (
    `There are too many prompts (${spread.prompts}) to send the value of each. Their mean is ` +
    `${spreadWords(spread)}; \`residscope.attribute(…)\` gives all values.`
  );
}

function captionOf(spread: PromptSpread | null, targetName: string): string {
  if (!spread) return "Adding up the prompts …";
  const words = `Line and band: mean ± one standard deviation, ${spreadWords(spread)}.`;
  if (spread.head !== null) return `What ${spread.head} adds to the ${targetName} in each prompt. ${words}`;
  return (
    `The ${targetName} of each prompt, read from its final residual stream. Point at a head to see its ` +
    `contributions. ${words}`
  );
}
