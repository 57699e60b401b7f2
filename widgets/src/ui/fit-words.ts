// A sentence on one line, made of parts that are never cut: a part that does not fit is left out completely.
import { html, render } from "lit-html";

/** Renders the parts into a node that is one line high, so that parts that do not fit wrap out of view; its title has all. */
export function fitWords(node: HTMLElement, parts: string[]): void {
  node.classList.add("rs-fit");
  node.title = parts.join("");
  render(html`${parts.map((part) => html`<span>${part}</span>`)}`, node);
}
