// Header: which cache this is, what is attributed, and whether the rows add up.
import { html, nothing, render } from "lit-html";
import type { Client } from "../client";
import { bytes, plural } from "../format";
import { element, watch } from "../lifetime";
import type { Store } from "../store";
import { mountBadge } from "./badge";
import { mountPrompt } from "./prompt";
import { prose } from "./prose";
import { mountTarget } from "./target";

export function mountHeader(parent: HTMLElement, store: Store, client: Client, signal: AbortSignal): void {
  const facts = element("div", "rs-facts");
  const badge = element("div", "rs-badge-place");
  const target = element("div", "rs-target");
  const prompt = element("div", "rs-prompt");
  parent.append(element("div", "rs-top", {}, facts, badge), element("div", "rs-controls", {}, target, prompt));

  watch(signal, () => {
    const f = store.facts.value;
    const standing = store.standing.value;
    facts.classList.toggle("rs-standing", standing !== null);
    const name = html`<b class="rs-cache">${store.cacheName.value || f?.name || "cache"}</b>`;
    if (standing) {
      const { words, act } = standing;
      render(html`${name} <span role="alert">${prose(words)}</span>
        ${act ? html` <button type="button" class="rs-act" @click=${act.run}>${act.label}</button>` : nothing}`, facts);
      return;
    }
    const parts = f
      ? [f.model, `${plural(f.layers, "layer")} × ${plural(f.heads, "head")}`, `${plural(f.prompts, "prompt")} × ${plural(f.positions, "position")}`,
          `${f.dtype} on ${f.device}`, bytes(f.bytes)].filter((part) => part !== "")
      : ["reading the cache …"];
    render(html`${name} ${parts.map((part, i) => html`<span>${part}${i < parts.length - 1 ? " ·" : ""}</span> `)}`, facts);
  });
  mountBadge(badge, store, signal);
  mountTarget(target, store, client, signal);
  mountPrompt(prompt, store, signal);
}
