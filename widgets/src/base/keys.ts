// Keys that belong to an element while it has the focus, and not to the notebook around it.

const OWN_KEYS = new Set([
  "ArrowUp",
  "ArrowDown",
  "ArrowLeft",
  "ArrowRight",
  "Home",
  "End",
  "PageUp",
  "PageDown",
  "Enter",
  " ",
  "Escape",
]);

const isMac = /mac|iphone|ipad/i.test(globalThis.navigator?.platform ?? "");
/** What takes back an Esc, as it is called here. */
export const UNDO = isMac ? "⌘Z" : "Ctrl+Z";

/** Whether it is pressed; in a text field it is the field's own. */
export function isUndo(event: KeyboardEvent): boolean {
  const inText =
    event.target instanceof Element &&
    event.target.closest("input:not([type=checkbox], [type=radio], [type=range]), textarea, [contenteditable]") !==
      null;
  return (
    event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && !inText
  );
}

/** Also plain letters: one that cuts the notebook's cell would take the panel away under its user's hands. */
function isOwn(event: KeyboardEvent): boolean {
  const modified =
    event.metaKey ||
    event.altKey ||
    (event.ctrlKey && !/^(Home|End)$/.test(event.key)) ||
    (event.shiftKey && event.key === "Enter");
  return isUndo(event) || (!modified && (OWN_KEYS.has(event.key) || event.key.length === 1));
}

/** Shift+Enter, Ctrl+S and the like stay the notebook's. Call it after the element's own listeners. */
export function keepKeys(root: HTMLElement, signal: AbortSignal): void {
  // A notebook's own listeners sit above the output, in the bubbling phase …
  root.addEventListener(
    "keydown",
    (event) => {
      if (isOwn(event)) event.stopPropagation();
    },
    { signal },
  );
  // … but JupyterLab's command mode listens on the document, in the capture phase, where only this attribute is heeded.
  window.addEventListener(
    "keydown",
    (event) => {
      if (event.target instanceof Node && root.contains(event.target))
        root.toggleAttribute("data-lm-suppress-shortcuts", isOwn(event));
    },
    { signal, capture: true },
  );
}

/** Where `body` takes away what had the focus, `place` gets it, so that the keys stay here. */
export function keepFocus(place: HTMLElement, body: () => void): void {
  const root = place.getRootNode();
  const has = (): boolean => place.contains((root instanceof ShadowRoot ? root : place.ownerDocument).activeElement);
  const had = has();
  body();
  if (had && !has()) place.focus({ preventScroll: true });
}
