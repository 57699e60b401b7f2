// The trail: the steps by which the user reached the present target. A click on a step selects its target and position.
import { html, nothing, render } from "lit-html";
import { starred } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import type { Store } from "../../state/store";
import { isInside } from "../../state/target";
import { go } from "../../state/trail";
import { plainWords, stepWords } from "../../state/trail-words";

export function mountTrail(parent: HTMLElement, store: Store, signal: AbortSignal): void {
  const line = element("nav", "rs-trail", { "aria-label": "Trail of targets", hidden: "" });
  parent.append(line);
  watch(signal, () => {
    const { steps, at } = store.path.value;
    // A target inside the model that was set from Python is shown as a single step, because nothing else names it here.
    line.hidden = steps.length < 2 && !isInside(store.target.value);
    if (line.hidden) return render(nothing, line);
    const turn = (to: number, label: string, keys: string, sign: string) => html`<button type="button"
        class="rs-quiet rs-trail-turn" aria-label=${label} title="${label} (${keys})" aria-disabled=${!steps[to]}
        @click=${() => go(store, to)}>${sign}</button>`;
    render(
      html`${turn(at - 1, "Back", "Alt+←", "‹")}${turn(at + 1, "Forward", "Alt+→", "›")}
        <ol>${steps.map((step, i) => {
          const { before, name, after } = stepWords(store, step);
          const whole = plainWords({ before, name, after });
          const place = i === at ? "rs-here" : i > at ? "rs-later" : "";
          return html`<li class=${place}><button type="button" class="rs-crumb"
            data-step=${i} title=${starred(whole)} aria-label=${`step ${i + 1}: ${whole}`}
            aria-current=${i === at ? "step" : nothing}
            @click=${() => go(store, i)}>${before}<b dir="auto">${name}</b><span>${after}</span></button></li>`;
        })}</ol>`,
      line,
    );
  });
}
