// A sentence of several parts on one line. A part is either shown completely or, if there is no room, not at all.
import { html, render } from "lit-html";

/** Renders the parts into a node that is one line high. Parts without room wrap out of view; the tooltip has them. */
export function fitWords(node: HTMLElement, parts: string[]): void {
  node.classList.add("rs-fit");
  node.title = parts.join("");
  render(html`${parts.map((part) => html`<span>${part}</span>`)}`, node);
}
