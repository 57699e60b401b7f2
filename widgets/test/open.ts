// Opens a panel over a kernel in the page, for the tests.
import { expect, vi } from "vitest";
import { FakeModel, type Kernel } from "../dev/fake-model";
import { demoTarget, recordedKernel, SHAPE } from "../dev/recorded-kernel";
import entry, { type Traits } from "../src/entry/anywidget";
import { firstTraits } from "../src/state/selectable";
import { life } from "./lives";

export { SHAPE };

export async function open(traits: Partial<Traits> = {}, kernel: Kernel = recordedKernel(), delay = (): number => 0) {
  const end = life();
  const state: Traits = {
    ...firstTraits(),
    cache_name: "cache",
    prompt: 0,
    wire_target: demoTarget(),
    top_k: 3,
    ...traits,
  };
  const model = new FakeModel(state, kernel, delay);
  const el = document.createElement("div");
  document.body.append(el);
  entry.render({ model: model.asAnyModel(), el, signal: end.signal } as unknown as Parameters<typeof entry.render>[0]);
  const root = el.querySelector<HTMLElement>(".residscope");
  if (!root) throw new Error("nothing was drawn");
  return {
    model,
    el,
    root,
    close: () => end.abort(),
    settled: () => vi.waitFor(() => expect(root.dataset["state"]).not.toBe("loading")),
  };
}

export const all = (root: HTMLElement, selector: string): HTMLElement[] => [
  ...root.querySelectorAll<HTMLElement>(selector),
];
export const names = (nodes: HTMLElement[]): (string | null)[] => nodes.map((n) => n.getAttribute("aria-label"));
export const text = (node: Element | null | undefined): string => (node?.textContent ?? "").replace(/\s+/g, " ").trim();
export const key = (node: Element | null | undefined, name: string): boolean | undefined =>
  node?.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
