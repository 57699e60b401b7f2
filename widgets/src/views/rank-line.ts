// One line of a ranking, for heads and neurons alike: its name, a bar, a number; and the arrow keys that walk along the list.
import { html, type TemplateResult } from "lit-html";
import { signed } from "../format";

export interface Ranked {
  name: string;
  value: number;
}

export function rankLine({ name, value }: Ranked, limit: number): TemplateResult {
  const side = value < 0 ? "rs-minus" : "rs-plus";
  return html`<span class="rs-name">${name}</span>
    <span class="rs-track"><i class=${side} style="width:${limit > 0 ? (Math.abs(value) / limit) * 100 : 0}%"></i></span>
    <span class="rs-number ${side}">${signed(value)}</span>`;
}

/** Up, down, Home and End move the focus among the list's lines. */
export function walk(list: HTMLElement, selector: string, signal: AbortSignal): void {
  list.addEventListener("keydown", (event) => {
    const lines = [...list.querySelectorAll<HTMLElement>(selector)];
    const at = lines.findIndex((line) => line === event.target);
    const last = lines.length - 1;
    const to = { ArrowDown: Math.min(at + 1, last), ArrowUp: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    lines[to]?.focus();
  }, { signal });
}
