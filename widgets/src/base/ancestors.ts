// The parent of an element, also across the border of a shadow root.

export function parentOf(node: HTMLElement): HTMLElement | null {
  const root = node.getRootNode();
  return node.parentElement ?? (root instanceof ShadowRoot && root.host instanceof HTMLElement ? root.host : null);
}
