// Keys that go to an element while it has the focus, and not to the notebook around it.

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
/** The name of the key that undoes an Esc on this system. */
export const UNDO = isMac ? "⌘Z" : "Ctrl+Z";

/** Whether this is the undo key; in a text field it undoes typing, so there it is not. */
export function isUndo(event: KeyboardEvent): boolean {
  const modified = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
  return event.key.toLowerCase() === "z" && modified && !isInText(event);
}

/** Alt+← and Alt+→ go back and forward along the trail; in a text field they move the cursor, so there they do not. */
export function turnOf(event: KeyboardEvent): -1 | 1 | null {
  const plain = event.altKey && !event.ctrlKey && !event.metaKey && !event.shiftKey;
  const by = { ArrowLeft: -1 as const, ArrowRight: 1 as const }[event.key];
  return plain && by && !isInText(event) ? by : null;
}

export function isInText({ target }: KeyboardEvent): boolean {
  const fields = "input:not([type=checkbox], [type=radio], [type=range]), textarea, [contenteditable]";
  return target instanceof Element && target.closest(fields) !== null;
}

/** Whether a key is pressed without a modifier. */
export function isPlainKey({ altKey, ctrlKey, metaKey, shiftKey }: KeyboardEvent): boolean {
  return !altKey && !ctrlKey && !metaKey && !shiftKey;
}

/** Also plain letters: the letter that cuts a notebook's cell would remove the panel while the user works in it. */
function isOwn(event: KeyboardEvent): boolean {
  const modified =
    event.metaKey ||
    event.altKey ||
    (event.ctrlKey && !/^(Home|End)$/.test(event.key)) ||
    (event.shiftKey && event.key === "Enter");
  return isUndo(event) || turnOf(event) !== null || (!modified && (OWN_KEYS.has(event.key) || event.key.length === 1));
}

/** Shift+Enter, Ctrl+S and the like still go to the notebook. Call it after adding the element's own listeners. */
export function keepKeys(root: HTMLElement, signal: AbortSignal): void {
  // Most notebooks listen above the output, in the bubbling phase …
  root.addEventListener(
    "keydown",
    (event) => {
      if (isOwn(event)) event.stopPropagation();
    },
    { signal },
  );
  // … but JupyterLab's command mode listens on the document, in the capture phase, and respects only this attribute.
  window.addEventListener(
    "keydown",
    (event) => {
      if (event.target instanceof Node && root.contains(event.target))
        root.toggleAttribute("data-lm-suppress-shortcuts", isOwn(event));
    },
    { signal, capture: true },
  );
}

/** If `body` removes the element that has the focus, `place` gets the focus, so that keys do not go to the notebook. */
export function keepFocus(place: HTMLElement, body: () => void): void {
  const root = place.getRootNode();
  const has = (): boolean => place.contains((root instanceof ShadowRoot ? root : place.ownerDocument).activeElement);
  const had = has();
  body();
  if (had && !has()) place.focus({ preventScroll: true });
}
