// The note below the strip: how many tokens are treated as padding, and a button that counts them as real. The note
// also says if the model attended to them, or if the cache has no token ids.
import { html, nothing, render } from "lit-html";
import { plural } from "../../base/format";
import { watch } from "../../base/lifetime";
import type { Store } from "../../state/store";
import { prose } from "../../ui/prose";

export function mountPaddingNote(beside: HTMLElement, store: Store, signal: AbortSignal): void {
  watch(signal, () => {
    const facts = store.facts.value;
    const blind = facts?.has_tokens === false;
    const count = facts?.padding ?? 0;
    const left = store.padding.value === "found";
    beside.hidden = !blind && count === 0;
    // For a single prompt, its own number comes first: the number of tokens that are pale.
    const single = store.prompt.value !== null && (facts?.prompts ?? 1) > 1;
    const here = store.tokens.value.filter(({ padding }) => padding).length;
    const said = !left
      ? `${plural(count, "token")}${single ? " of all prompts" : ""} that may be padding ` +
        `${count === 1 ? "counts" : "count"} as real`
      : single
        ? `${here === 0 ? "no token" : plural(here, "token")} of this prompt treated as padding, ${count} in all`
        : `${plural(count, "token")} treated as padding`;
    // A prompt without padding was run as if alone.
    const isWarned = store.warnings.value.some(({ kind, run }) => kind === "attended-to-padding" && run !== "B");
    const attended = left && (!single || here > 0) && isWarned;
    const it = count === 1 ? "it" : "them";
    render(
      html`${
        blind || count === 0
          ? prose("positions only: the cache holds no token ids; pass `tokens=` to see text")
          : nothing
      }
      ${
        count > 0
          ? html`<span class="rs-taken">${said}${
              attended
                ? html`, <span class="rs-warned">but the model attended to ${it}: these are not the values of the ${
                    store.isMean.value ? "prompts" : "prompt"
                  } alone</span>`
                : nothing
            } · </span><button type="button" class="rs-act rs-count-padding"
          @click=${() => store.togglePadding()}>${left ? `count ${it} as real` : `leave ${it} out`}</button>`
          : nothing
      }`,
      beside,
    );
  });
}
