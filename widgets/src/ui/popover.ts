// Closes a popover (an element that opens above others) when the user goes to another part of the page.

/**
 * While `isOpen()`, calls `close` when the focus moves out of `parent`, or the user presses outside it. If the window
 * loses the focus, nothing is closed.
 */
export function closeElsewhere(
  parent: HTMLElement,
  isOpen: () => boolean,
  close: () => void,
  signal: AbortSignal,
): void {
  parent.addEventListener(
    "focusout",
    (event) => {
      if (isOpen() && event.relatedTarget instanceof Node && !parent.contains(event.relatedTarget)) close();
    },
    { signal },
  );
  parent.ownerDocument.addEventListener(
    "pointerdown",
    (event) => {
      if (isOpen() && !event.composedPath().includes(parent)) close();
    },
    { signal, capture: true }, // `capture`, because another listener may stop the event
  );
}
