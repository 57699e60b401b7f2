// What opens over the rest, and closes when its user turns elsewhere.

/**
 * Calls `close` when the focus or a press goes elsewhere in the page while it is open. A window that loses the focus
 * closes nothing.
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
    { signal, capture: true }, // also where nothing takes the focus, and where something else takes the press
  );
}
