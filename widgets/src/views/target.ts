// Target editor: "logit of [·Mary] minus [·John] ⇄". Tokens are buttons; each opens a combobox in place.
import { batch, signal as state } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import type { Client } from "../client";
import { child, element, watch } from "../lifetime";
import type { Token } from "../protocol.gen";
import type { Store } from "../store";
import { canSwap, edit, inView, isSet, label, shared, type Side, swap } from "../target";
import { mountCombobox } from "./combobox";

export function mountTarget(parent: HTMLElement, store: Store, client: Client, signal: AbortSignal): void {
  const open = state<Side | null>(null);
  const line = element("div", "rs-target-line");
  const box = element("div", "rs-popover rs-combobox-place", { hidden: "" });
  parent.append(line, box);

  const chip = (side: Side): TemplateResult => {
    const target = store.target.value;
    const contrasts = inView(target, store.prompt.value);
    const tokens = shared(contrasts, side);
    const mixed = tokens === null;
    const own = side === "answer" ? "each prompt’s top token" : "its second";
    const text = mixed ? (target.own ? own : `each prompt’s ${side}`) : tokens.length > 0 ? label(tokens) : "choose …";
    const all = contrasts.map((c, i) => `prompt ${i}: ${label(c[side]) || "none"}`);
    const tip = mixed ? [...all.slice(0, 24), ...(all.length > 24 ? [`… ${all.length - 24} more`] : [])].join("\n") : `Change the ${side}`;
    return html`<button type="button" class="rs-chip ${mixed || tokens.length === 0 ? "rs-mixed" : ""}" aria-label="${side}: ${text}"
      aria-haspopup="listbox" aria-expanded=${open.value === side} title=${tip} data-side=${side}
      @click=${() => (open.value = open.peek() === side ? null : side)}>${text}</button>`;
  };

  watch(signal, () => {
    const target = store.target.value;
    if (target.direction) {
      return render(html`<span>value along</span> <span class="rs-chip rs-fixed" title="Set from Python; a new answer replaces it">a direction</span>
        <button type="button" class="rs-quiet" data-side="answer" @click=${() => (open.value = "answer")}>use a token instead</button>`, line);
    }
    const some = inView(target, store.prompt.value).some((c) => c.distractor.length > 0);
    const minus = some || open.value === "distractor";
    render(
      html`<span>logit of</span> ${chip("answer")}
        ${minus
          ? html`<span>minus</span> ${chip("distractor")}
              ${some ? html`<button type="button" class="rs-quiet rs-remove" aria-label="Remove the distractor" title="Remove the distractor: attribute the plain logit"
                  @click=${() => apply("distractor", [])}>×</button>` : nothing}
              <button type="button" class="rs-quiet rs-swap" aria-label="Swap answer and distractor" title="Swap answer and distractor in all prompts"
                ?disabled=${!canSwap(target)} @click=${() => (store.target.value = swap(store.target.peek()))}>⇄</button>`
          : html`<button type="button" class="rs-quiet" data-side="distractor" title="Subtract another token’s logit" ?disabled=${!isSet(target)}
              @click=${() => (open.value = "distractor")}>minus …</button>`}`,
      line,
    );
  });

  const apply = (side: Side, tokens: Token[]): void => {
    batch(() => {
      store.target.value = edit(store.target.peek(), store.prompt.peek(), side, tokens);
      open.value = null;
    });
    if (tokens.length === 0) line.querySelector<HTMLElement>(`[data-side="${side}"]`)?.focus();
  };
  const close = (refocus: boolean): void => {
    const side = open.peek();
    open.value = null;
    if (refocus && side) line.querySelector<HTMLElement>(`[data-side="${side}"]`)?.focus();
  };

  let end: AbortController | null = null;
  watch(signal, () => {
    const side = open.value;
    end?.abort();
    end = null;
    box.hidden = side === null;
    if (side === null) return;
    end = child(signal);
    mountCombobox(box, side, store, client, end.signal, {
      choose: (token) => {
        apply(side, [token]);
        line.querySelector<HTMLElement>(`[data-side="${side}"]`)?.focus();
      },
      close,
    });
  });
  parent.addEventListener("focusout", (event) => {
    if (open.peek() !== null && event.relatedTarget instanceof Node && !parent.contains(event.relatedTarget)) close(false);
  }, { signal });
  // Pressing anywhere else closes it, also where nothing takes the focus.
  document.addEventListener("pointerdown", (event) => {
    if (open.peek() !== null && !event.composedPath().includes(parent)) close(false);
  }, { signal, capture: true });
}
