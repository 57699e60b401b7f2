// A sentence on one line, out of parts that are never cut: what does not fit is left out whole.
import { html, render } from "lit-html";

/** Each part wraps as a whole, out of sight of a node of the class `rs-fit` (one line high); all of it is its title. */
export function fitWords(node: HTMLElement, parts: string[]): void {
  node.classList.add("rs-fit");
  node.title = parts.join("");
  render(html`${parts.map((part) => html`<span>${part}</span>`)}`, node);
}
