// Stops most keys that are pressed in the panel from reaching the notebook around it. Keeps the focus in the panel if
// the focused element is removed.

const KEPT_KEYS = new Set([
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
/** The name of the undo key on this system. */
export const UNDO = isMac ? "⌘Z" : "Ctrl+Z";

/** Whether this is the undo key. In a text field the answer is no, because the key undoes typing there. */
export function isUndo(event: KeyboardEvent): boolean {
  const isModified = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
  return event.key.toLowerCase() === "z" && isModified && !isInText(event);
}

/**
 * The step that a key means along the trail (the targets that the user chose one after another): −1 for Alt+←, 1 for
 * Alt+→, null for other keys. In a text field the step is always null, because there these keys move the cursor.
 */
export function trailStepOf(event: KeyboardEvent): -1 | 1 | null {
  const isAltOnly = event.altKey && !event.ctrlKey && !event.metaKey && !event.shiftKey;
  const step = { ArrowLeft: -1 as const, ArrowRight: 1 as const }[event.key];
  return isAltOnly && step && !isInText(event) ? step : null;
}

/** Whether a key is pressed in a text field. */
export function isInText({ target }: KeyboardEvent): boolean {
  const fields = "input:not([type=checkbox], [type=radio], [type=range]), textarea, [contenteditable]";
  return target instanceof Element && target.closest(fields) !== null;
}

/** Whether a key is pressed without a modifier. */
export function isPlainKey({ altKey, ctrlKey, metaKey, shiftKey }: KeyboardEvent): boolean {
  return !altKey && !ctrlKey && !metaKey && !shiftKey;
}

/** Whether the notebook must not get this key. Letters are kept, too: x would cut the cell, and the panel with it. */
function isKept(event: KeyboardEvent): boolean {
  const isModified =
    event.metaKey ||
    event.altKey ||
    (event.ctrlKey && !/^(Home|End)$/.test(event.key)) ||
    (event.shiftKey && event.key === "Enter");
  return (
    isUndo(event) ||
    trailStepOf(event) !== null ||
    (!isModified && (KEPT_KEYS.has(event.key) || event.key.length === 1))
  );
}

/** The numbers beside a cell and its output. An output's number lies under an overlay, which takes the click. */
const PROMPTS = ".jp-InputPrompt, .jp-OutputPrompt, .jp-OutputArea-promptOverlay";

/**
 * Keeps keys in an element. Shift+Enter, Ctrl+S and similar keys still go to the notebook. After a click on the prompt
 * of the cell around the element, all keys go to the notebook.
 */
export function keepKeys(root: HTMLElement, signal: AbortSignal): void {
  // Most notebooks listen on an ancestor of the output, in the bubbling phase.
  root.addEventListener(
    "keydown",
    (event) => {
      if (isKept(event)) event.stopPropagation();
    },
    { signal },
  );
  // JupyterLab's command mode listens on the document, in the capture phase, and respects only this attribute.
  window.addEventListener(
    "keydown",
    (event) => {
      if (event.target instanceof Node && root.contains(event.target))
        root.toggleAttribute("data-lm-suppress-shortcuts", isKept(event));
    },
    { signal, capture: true },
  );
  // A click on the prompt of a cell selects the cell. But JupyterLab does not move a focus that is inside the cell.
  window.addEventListener(
    "pointerdown",
    ({ target, button }) => {
      // A middle click selects nothing.
      const prompt = target instanceof Element && button !== 1 ? target.closest(PROMPTS) : null;
      const { activeElement } = root.ownerDocument;
      if (!prompt?.closest(".jp-Cell")?.contains(root) || !(activeElement instanceof HTMLElement)) return;
      if (root.contains(activeElement)) activeElement.blur();
    },
    { signal, capture: true },
  );
}

/**
 * Runs `change`. If `change` removes the element that has the focus, `container` gets the focus, so that keys do not go
 * to the notebook.
 */
export function keepFocus(container: HTMLElement, change: () => void): void {
  const root = container.getRootNode();
  const hasFocus = (): boolean =>
    container.contains((root instanceof ShadowRoot ? root : container.ownerDocument).activeElement);
  const hadFocus = hasFocus();
  change();
  if (hadFocus && !hasFocus()) container.focus({ preventScroll: true });
}
