// The header: the cache, the target, and whether the rows add up. A narrow header has three lines: the cache, the
// target, the prompt.
import { signal as state } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { bytes, plural, starred } from "../../base/format";
import { shown } from "../../base/legible";
import { element, watch } from "../../base/lifetime";
import type { Store } from "../../state/store";
import { endWords } from "../../state/target";
import { closeElsewhere } from "../../ui/popover";
import { prose } from "../../ui/prose";
import { measured } from "../../ui/width";
import type { Client } from "../../wire/client";
import { mountAgainst } from "./against";
import { mountBadge } from "./badge";
import { mountMenu } from "./export-menu";
import { dotted } from "./facts";
import { mountHelpButton } from "./help";
import { mountPrompt } from "./prompt";
import { mountTarget } from "./target";
import { mountTrail } from "./trail";

/** If the panel is at least this wide, the facts are next to the name. header.css has the same number. */
const ROOM_PX = 560;
let headers = 0;

export function mountHeader(parent: HTMLElement, store: Store, client: Client, signal: AbortSignal): void {
  const facts = element("div", "rs-facts");
  const badge = element("div", "rs-badge-place");
  const target = element("div", "rs-target");
  const prompt = element("div", "rs-prompt");
  const at = element("div", "rs-at");
  const against = element("div", "rs-against");
  const larger = element("div", "rs-larger");
  const menu = element("div", "rs-menu");
  const help = element("div", "rs-help-place");
  const root = parent.closest<HTMLElement>(".residscope") ?? parent;
  parent.append(
    element("div", "rs-top", {}, facts, badge, help),
    element("div", "rs-controls", {}, target, prompt, at, against, element("div", "rs-tools", {}, larger, menu)),
  );

  mountName(facts, store, measured(root, 1000, signal), signal);
  watch(signal, () => {
    const destination = store.destination.value;
    const many = (store.facts.value?.prompts ?? 1) > 1;
    const next = destination !== null && store.asksEach.value ? store.tokenText(destination + 1) : null;
    const then = next === null ? "" : `: ${next} came next`;
    const where = destination === null ? "" : `at ${store.tokenText(destination)}, position ${destination}${then}`;
    at.title = starred(where) === where ? "" : starred(where);
    render(
      !store.facts.value
        ? nothing
        : destination !== null
          ? html`at <b>${store.tokenText(destination)}</b> ${destination}${
              next === null ? nothing : html` → <b>${next}</b>`
            }`
          : many
            ? `at ${endWords(store.target.value)}`
            : nothing,
      at,
    );
  });
  watch(signal, () => {
    const enlarge = store.hostControls.value?.enlarge;
    const name = shown(store.cacheName.value || "cache");
    render(
      enlarge
        ? html`<button type="button" class="rs-quiet" aria-label="Open ${name} in the main area"
            title="Open in the main area" @click=${enlarge}>⤢</button>`
        : nothing,
      larger,
    );
  });
  mountBadge(badge, store, signal);
  mountTarget(target, store, client, signal);
  mountPrompt(prompt, store, signal);
  mountAgainst(against, store, client, signal);
  mountMenu(menu, store, client, signal);
  mountHelpButton(help, root, store, client, signal);
  mountTrail(parent, store, signal);
}

/**
 * The name and the facts of the cache. If there is no room next to the name, a click on the name shows the facts. In a
 * sidebar, a click shows the list of caches instead.
 */
function mountName(parent: HTMLElement, store: Store, width: { value: number }, signal: AbortSignal): void {
  const id = `rs-facts-${++headers}`;
  const open = state(false);

  watch(signal, () => {
    const f = store.facts.value;
    const parts = f
      ? [
          shown(f.model),
          `${plural(f.layers, "layer")} × ${plural(f.heads, "head")}`,
          `${plural(f.prompts, "prompt")} × ${plural(f.positions, "position")}`,
          shown(`${f.dtype} on ${f.device}`),
          bytes(f.bytes),
        ].filter((part) => part !== "")
      : ["reading the cache …"];
    const standing = store.statusNotice.value;
    const { list } = store.hostControls.value ?? {};
    const narrow = width.value < ROOM_PX;
    const label = shown(store.cacheName.value || f?.name || "cache");
    const name = html`<b class="rs-cache" title=${list || narrow ? nothing : label}>${label}</b>`;
    const count = list?.count.value ?? "";
    const isOpen = list ? list.open.value : open.value && narrow;
    const toggle = (): void => (list ? list.toggle() : void (open.value = !open.peek()));
    const keys = (event: KeyboardEvent): void => {
      if (event.key !== "ArrowDown" || isOpen) return;
      event.preventDefault();
      toggle();
    };
    // A message about the cache's status covers the facts, which keep their place so that nothing moves. In a narrow
    // header the message has its own line.
    render(
      html`<div class="rs-name-line">
          ${
            list || narrow
              ? html`<button type="button" class="rs-named" aria-expanded=${isOpen} aria-controls=${list?.id ?? id}
                  title=${`${label}: ${list ? "the caches of this kernel" : "facts about this cache"}`}
                @click=${toggle} @keydown=${keys}>${name}</button>`
              : name
          }
          ${count ? html`<span class="rs-count">${count}</span>` : nothing}
          ${pin(store)}
        </div>
        <div class="rs-what">
          <div id=${id}
              class="rs-known ${standing && !narrow ? "rs-covered" : ""} ${isOpen && !list ? "rs-popover" : ""}"
              ?hidden=${narrow && (!isOpen || list !== undefined)}
              aria-hidden=${standing && !narrow ? "true" : "false"}>${dotted(parts)}</div>
          ${
            standing
              ? html`<div class="rs-standing">${narrow ? name : nothing} <span
                  role="alert">${prose(standing.words)}</span>
            ${
              standing.act
                ? html` <button type="button" class="rs-act"
                @click=${standing.act.run}>${standing.act.label}</button>`
                : nothing
            }</div>`
              : nothing
          }
        </div>`,
      parent,
    );
  });

  const close = (): void => void (open.value = false);
  parent.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "Escape" || !open.peek()) return;
      event.stopPropagation();
      close();
    },
    { signal },
  );
  closeElsewhere(parent, () => open.peek(), close, signal);
}

/** The "follow" button. An inline panel has none, because it gets no list of the kernel's variables. */
function pin(store: Store) {
  if (store.ref.value === null) return nothing;
  const followed = store.follow.value;
  const name = shown(followed ?? store.cacheName.value);
  return html`<button type="button" class="rs-follow" aria-pressed=${followed !== null}
      aria-label="Follow ${name}: show each new cache of this name automatically"
    title="Follow ${name}: show each new cache of this name automatically"
        @click=${() => (store.follow.value = followed === null ? store.cacheName.peek() : null)}
    ><svg viewBox="0 0 16 16" width="12" height="12" aria-hidden="true"><path
        d="M5 1.5h6M6 1.5v5L3.5 9.5h9L10 6.5v-5M8 9.5v5" /></svg><span>follow</span></button>`;
}
