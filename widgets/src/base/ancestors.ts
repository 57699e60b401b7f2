// The parent of an element. The parent of a shadow root's top element is the element that hosts the root.

export function parentOf(node: HTMLElement): HTMLElement | null {
  const root = node.getRootNode();
  return node.parentElement ?? (root instanceof ShadowRoot && root.host instanceof HTMLElement ? root.host : null);
}
