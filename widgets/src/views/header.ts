// Header: which cache this is, what is attributed, and whether the rows add up.
import { html, nothing, render } from "lit-html";
import type { Client } from "../client";
import { bytes, plural } from "../format";
import { shown } from "../legible";
import { element, watch } from "../lifetime";
import type { Store } from "../store";
import { mountBadge } from "./badge";
import { mountMenu } from "./menu";
import { mountPrompt } from "./prompt";
import { prose } from "./prose";
import { mountTarget } from "./target";

export function mountHeader(parent: HTMLElement, store: Store, client: Client, signal: AbortSignal): void {
  const facts = element("div", "rs-facts");
  const badge = element("div", "rs-badge-place");
  const target = element("div", "rs-target");
  const prompt = element("div", "rs-prompt");
  const menu = element("div", "rs-menu");
  parent.append(element("div", "rs-top", {}, facts, badge), element("div", "rs-controls", {}, target, prompt, menu));

  watch(signal, () => {
    const f = store.facts.value;
    const parts = f
      ? [shown(f.model), `${plural(f.layers, "layer")} × ${plural(f.heads, "head")}`, `${plural(f.prompts, "prompt")} × ${plural(f.positions, "position")}`,
          shown(`${f.dtype} on ${f.device}`), bytes(f.bytes)].filter((part) => part !== "")
      : ["reading the cache …"];
    const standing = store.standing.value;
    const name = html`<b class="rs-cache">${shown(store.cacheName.value || f?.name || "cache")}</b>`;
    // What has become of the cache stands over its facts, which keep their place: nothing moves.
    render(
      html`<div class=${standing ? "rs-covered" : ""} aria-hidden=${standing ? "true" : "false"}>${name} ${parts.map((part, i) => html`<span>${part}${i < parts.length - 1 ? " ·" : ""}</span> `)}</div>
        ${standing ? html`<div class="rs-standing">${name} <span role="alert">${prose(standing.words)}</span>
          ${standing.act ? html` <button type="button" class="rs-act" @click=${standing.act.run}>${standing.act.label}</button>` : nothing}</div>` : nothing}`,
      facts,
    );
  });
  mountBadge(badge, store, signal);
  mountTarget(target, store, client, signal);
  mountPrompt(prompt, store, signal);
  mountMenu(menu, store, client, signal);
}
