// The way up from an element, out of shadow roots, too.

export function parentOf(node: HTMLElement): HTMLElement | null {
  const root = node.getRootNode();
  return node.parentElement ?? (root instanceof ShadowRoot && root.host instanceof HTMLElement ? root.host : null);
}
