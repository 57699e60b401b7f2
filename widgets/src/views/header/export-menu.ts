// The export menu: a line for each picture on screen, with buttons for code, numbers and figures. Another button saves
// the whole view as a page.
import { signal as state } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { element, watch } from "../../base/lifetime";
import { exportPage, exportPicture, type Format, type Outcome, stopPage } from "../../export/actions";
import type { ShownPicture } from "../../export/pictures";
import { shownPictures } from "../../export/shown-pictures";
import type { Store } from "../../state/store";
import { closeElsewhere } from "../../ui/popover";
import type { Client } from "../../wire/client";

const FORMATS: [Format, string, string][] = [
  ["code", "Code", "Copy the Python code that gives exactly these numbers"],
  ["csv", "CSV", "Save the numbers as a table"],
  ["svg", "SVG", "Save a figure at print size, as lines and text"],
  ["png", "PNG", "Save a figure at print size, at 600 dots per inch"],
];
const PAGE =
  "Save the view, with all heads, prompts and positions, as one file that opens in any browser, without a kernel";
let menus = 0;

export function mountMenu(parent: HTMLElement, store: Store, client: Client, signal: AbortSignal): void {
  const id = `rs-export-${++menus}`;
  const open = state(false);
  const busy = state(false);
  const outcome = state<Outcome | null>(null);
  const button = element(
    "button",
    "rs-quiet rs-export",
    { type: "button", "aria-haspopup": "dialog", "aria-controls": id },
    "Export",
  );
  const box = element("div", "rs-popover rs-export-menu", { id, role: "dialog", "aria-label": "Export", hidden: "" });
  parent.append(button, box);

  const close = (): void => {
    open.value = false;
    outcome.value = null;
  };
  const act = async (work: () => Promise<Outcome>): Promise<void> => {
    if (busy.peek()) return;
    busy.value = true;
    outcome.value = null;
    try {
      say(await work());
    } catch (error) {
      say({ message: error instanceof Error ? error.message : String(error) });
    } finally {
      busy.value = false;
    }
  };
  // The message appears in the menu while it is open, else in the panel's sentence line.
  const say = (what: Outcome): void => {
    if (signal.aborted) return;
    if (!open.peek()) return void (store.sentence.value = [what.message]);
    outcome.value = what;
    box.querySelector<HTMLElement>(".rs-export-code")?.focus(); // focus selects the code
  };

  watch(signal, () => {
    button.setAttribute("aria-expanded", String(open.value));
    box.hidden = !open.value;
    box.setAttribute("aria-busy", String(busy.value));
    // CSS uses this class: a rule for the attribute would make the browser check every button of the panel.
    box.classList.toggle("rs-busy", busy.value);
    if (!open.value) return render(nothing, box);
    const pictures = shownPictures(store);
    const what = outcome.value;
    const far = busy.value ? client.progress.value : null;
    const line = (shown: ShownPicture, row: number) => html`<div role="row" class="rs-export-line">
      <span role="rowheader" title=${shown.title}>${shown.title}</span>
      ${FORMATS.map(
        (
          [format, name, tip],
          column,
        ) => html`<span role="gridcell"><button type="button" data-row=${row} data-column=${column}
            tabindex=${row + column === 0 ? 0 : -1}
        aria-label="${shown.title}: ${name}" title=${tip}
            @click=${() =>
              act(() => exportPicture(format, shown.picture.picture, store, client, box))}>${name}</button></span>`,
      )}
    </div>`;
    render(
      html`${
        pictures.length > 0
          ? html`<div role="grid"
          aria-label="Pictures on screen">${pictures.map(line)}</div>`
          : html`<p>Nothing is drawn yet.</p>`
      }
        <button type="button" class="rs-export-page" data-row=${pictures.length} data-column="0"
          title=${PAGE}
          @click=${() => act(() => exportPage(store, client, box))}>Stand-alone page (.html)</button>
        <p class="rs-export-said"
            role="status">${busy.value ? "working …" : (what?.message ?? "")}${
              far !== null && far.total > 0
                ? html`<span
            aria-hidden="true"> ${far.done} of ${far.total}</span> <button type="button" class="rs-act"
            @click=${() => stopPage(client)}>Stop</button>`
                : nothing
            }</p>
        ${
          what?.byHand === undefined
            ? nothing
            : html`<textarea class="rs-export-code" readonly rows="6"
            aria-label="Code to copy" .value=${what.byHand}
            @focus=${(event: Event) => (event.target as HTMLTextAreaElement).select()}></textarea>`
        }`,
      box,
    );
  });

  button.addEventListener(
    "click",
    () => {
      if (open.peek()) return close();
      open.value = true;
      place(box, button);
      box.querySelector<HTMLElement>('[tabindex="0"], .rs-export-page')?.focus();
    },
    { signal },
  );

  parent.addEventListener(
    "keydown",
    (event) => {
      if (event.key === "Escape" && open.peek()) {
        event.stopPropagation();
        close();
        button.focus();
        return;
      }
      if (event.target === button && event.key === "ArrowDown" && !open.peek()) {
        event.preventDefault();
        return button.click();
      }
      moveFocus(event, box);
    },
    { signal },
  );
  closeElsewhere(parent, () => open.peek(), close, signal);
}

/** Places the menu below its button, but not beyond the left edge of a narrow panel. */
function place(box: HTMLElement, button: HTMLElement): void {
  const header = button.closest<HTMLElement>(".rs-header");
  if (!header) return;
  const [own, whole] = [button.getBoundingClientRect(), header.getBoundingClientRect()];
  box.style.top = `${own.bottom - whole.top + 4}px`;
  box.style.right = `${Math.max(0, Math.min(whole.right - own.right, whole.width - box.offsetWidth))}px`;
}

/** Moves the focus between the buttons, which form rows and columns, with the arrow keys. */
function moveFocus(event: KeyboardEvent, box: HTMLElement): void {
  const at = event.target instanceof HTMLElement ? event.target : null;
  if (!at || at.dataset["row"] === undefined) return;
  const [row, column] = [Number(at.dataset["row"]), Number(at.dataset["column"])];
  const find = (r: number, c: number): HTMLElement | null => box.querySelector(`[data-row="${r}"][data-column="${c}"]`);
  const last = Math.max(
    ...[...box.querySelectorAll<HTMLElement>("[data-row]")].map((one) => Number(one.dataset["row"])),
  );
  const to = {
    ArrowDown: () => find(row + 1, column) ?? find(row + 1, 0),
    ArrowUp: () => find(row - 1, column) ?? find(row - 1, 0),
    ArrowRight: () => find(row, column + 1),
    ArrowLeft: () => find(row, column - 1),
    Home: () => find(0, 0),
    End: () => find(last, 0),
  }[event.key];
  if (!to) return;
  event.preventDefault();
  const next = to();
  if (!next) return;
  // The Tab key stops once in the whole grid, and then at the button for the page.
  if (next.closest('[role="grid"]')) {
    box.querySelector<HTMLElement>('[role="grid"] [tabindex="0"]')?.setAttribute("tabindex", "-1");
    next.tabIndex = 0;
  }
  next.focus();
}
