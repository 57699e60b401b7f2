// "Help": a button in the header, and the key "?". The host of the panel may handle the event, and open the chapter in
// its own way. Otherwise the chapter opens over the panel, and its text comes from the kernel.
import { signal as state } from "@preact/signals-core";
import { asChapter, type Chapter } from "../../base/chapters";
import { isInText } from "../../base/keyboard";
import { child, element, watch } from "../../base/lifetime";
import { chapterFor, PARTS, type Part } from "../../state/help-chapter";
import type { Store } from "../../state/store";
import { mountHelp } from "../../ui/help";
import { closeElsewhere } from "../../ui/popover";
import type { Client } from "../../wire/client";
import { chapterOfTheTab } from "../tabs";

/** The event that asks the host of a panel for the chapter `detail`. A host that opens it calls `preventDefault`. */
export const HELP_EVENT = "residscope-help";

/** Asks the hosts around an element for a chapter. Returns false if none opens it. */
export function askForHelp(from: HTMLElement, chapter: Chapter): boolean {
  const asked = new CustomEvent(HELP_EVENT, { detail: chapter, bubbles: true, composed: true, cancelable: true });
  return !from.dispatchEvent(asked);
}

/** The chapter that a help event asks for; null if it names none. Any part of the page can send such an event. */
export function chapterOf(event: Event): Chapter | null {
  return event instanceof CustomEvent ? asChapter(event.detail) : null;
}

/** The text of the chapter about gestures and keys. The build inserts it, so that it can be read without a kernel. */
declare const PANEL_CHAPTER: string;
const GONE = "Only the gestures and keys are part of this page. The other chapters are in the package.";
let helps = 0;

export function mountHelpButton(
  parent: HTMLElement,
  root: HTMLElement,
  store: Store,
  client: Client,
  signal: AbortSignal,
): void {
  const id = `rs-help-${++helps}`;
  const button = element(
    "button",
    "rs-quiet rs-help-open",
    { type: "button", "aria-label": "Help", title: "Help on what has the focus (key ?)", "aria-controls": id },
    "?",
  );
  const box = element("div", "rs-popover rs-help", { id, role: "dialog", "aria-label": "Help", hidden: "" });
  parent.append(button, box);
  const open = state(false);
  // The part of the panel that got the focus or was pressed last. The help button and the help do not count. The export
  // menu counts only while it is open or has the focus; after that, the part before it counts again.
  let part: Part | null = null;
  let isMenuUsed = false;
  for (const event of ["focusin", "pointerdown"])
    root.addEventListener(
      event,
      ({ target }) => {
        if (!(target instanceof Element) || parent.contains(target)) return;
        const used = partOf(target);
        isMenuUsed = used === "menu";
        if (used !== "menu") part = used;
      },
      { signal },
    );
  root.addEventListener(
    "focusout",
    ({ relatedTarget }) => {
      if (!(relatedTarget instanceof Node && parent.contains(relatedTarget))) isMenuUsed = false;
    },
    { signal },
  );
  const chapterNow = (): Chapter => {
    const isMenu = isMenuUsed || root.querySelector('.rs-menu [aria-expanded="true"]') !== null;
    return chapterFor(isMenu ? "menu" : part, store, chapterOfTheTab(store));
  };

  const load = async (chapter: Chapter): Promise<string> => {
    if (chapter === "panel" && typeof PANEL_CHAPTER === "string") return PANEL_CHAPTER;
    if (store.isSaved.peek()) throw new Error(GONE);
    return (await client.quietly({ kind: "chapter", name: chapter })).reply.text;
  };
  let end = child(signal);
  const show = (chapter: Chapter): void => {
    if (askForHelp(root, chapter)) return;
    end.abort();
    end = child(signal);
    box.replaceChildren();
    const close = element("button", "rs-quiet", { type: "button", "aria-label": "Close the help" }, "×");
    close.addEventListener("click", hide, { signal: end.signal });
    mountHelp(box, store.isSaved.peek() ? "panel" : chapter, load, end.signal);
    box.querySelector(".rs-help-bar")?.append(close);
    open.value = true;
    box.querySelector("select")?.focus({ preventScroll: true });
  };
  const hide = (): void => {
    open.value = false;
    button.focus({ preventScroll: true });
  };
  watch(signal, () => {
    box.hidden = !open.value;
    button.setAttribute("aria-expanded", String(open.value));
    if (!open.value) end.abort();
  });
  button.addEventListener("click", () => (open.peek() ? hide() : show(chapterNow())), { signal });
  parent.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "Escape" || !open.peek()) return;
      event.stopPropagation();
      hide();
    },
    { signal },
  );
  root.addEventListener(
    "keydown",
    (event) => {
      const isModified = event.altKey || event.ctrlKey || event.metaKey;
      if (event.key !== "?" || isModified || isInText(event)) return;
      event.preventDefault();
      show(chapterNow());
    },
    { signal },
  );
  closeElsewhere(
    parent,
    () => open.peek(),
    () => (open.value = false),
    signal,
  );
}

function partOf(target: Element): Part | null {
  return PARTS.find((name) => target.closest(`.rs-${name}`)) ?? null;
}
