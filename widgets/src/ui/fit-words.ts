// A sentence on one line, made of parts. A part for which there is no room is left out completely, never cut.
import { html, render } from "lit-html";

/** Renders the parts into a node that is one line high. Parts without room wrap out of view. The title has all parts. */
export function fitWords(node: HTMLElement, parts: string[]): void {
  node.classList.add("rs-fit");
  node.title = parts.join("");
  render(html`${parts.map((part) => html`<span>${part}</span>`)}`, node);
}
