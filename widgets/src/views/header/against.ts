// "against …": the user chooses the run that the shown run is compared with. It is another prompt, another cache of the
// kernel, or a run of the model without some heads. A switch decides whether the head map, the ranking and the badge
// show the first run (A), the second run (B) or their difference.
import { batch, computed, signal as state } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { legibleSentence, shown as safe } from "../../base/legible";
import { element, watch } from "../../base/lifetime";
import { type Choice, choicesOf, type Run } from "../../state/comparison";
import { isOutdated } from "../../state/loader";
import type { Store } from "../../state/store";
import { putBack, takeOut, toTakeOut } from "../../state/take-out";
import { closeElsewhere } from "../../ui/popover";
import { prose } from "../../ui/prose";
import type { Client } from "../../wire/client";
import type { CachesReply } from "../../wire/protocol.gen";

/** The largest number of runs in the list. The user finds other runs by typing. */
const MOST = 9;
const RUNS: Run[] = ["first", "second", "difference"];
const COMPARE_WITH = "Compare with another prompt, another cache, or a run without some heads";
let boxes = 0;

/** The name of a head that is taken out in the second run, with a button that puts it back. */
function chip(store: Store, head: string): TemplateResult {
  const words = `Put ${head} back`;
  return html`<span class="rs-out"><b>${head}</b><button type="button" class="rs-quiet" aria-label=${words}
      title=${words} ?hidden=${store.isSaved.value} @click=${() => putBack(store, head)}>×</button></span>`;
}

/** The state of the run without some heads, or a button that starts it; nothing if the run was made. */
function whatIf(store: Store): TemplateResult | typeof nothing {
  const { isRunning, isMissing, refusal, behind } = store.runs.whatIf;
  if (isRunning.value) {
    const waits = { cell: "waits for the running cell", kernel: "waits for the kernel" };
    const words = behind.value ? waits[behind.value] : "running …";
    return html`<span class="rs-run-state" role="status" title=${words}>${words}</span>`;
  }
  if ((!isMissing.value && refusal.value === null) || store.isSaved.value) return nothing;
  return html`<button type="button" class="rs-act" title="This runs your model, between cells"
      @click=${() => store.runs.whatIf.start()}>run again</button>`;
}

export function mountAgainst(parent: HTMLElement, store: Store, client: Client, signal: AbortSignal): void {
  const id = `rs-against-${++boxes}`;
  const open = state(false);
  const typed = state("");
  const active = state(0);
  const listed = state<CachesReply | null>(null);
  const failure = state("");
  const line = element("div", "rs-against-line");
  const box = element("div", "rs-popover rs-combobox-place rs-against-box", { hidden: "" });
  parent.append(line, box);

  const { names } = store.runs;
  const choices = computed<Choice[]>(() => {
    const facts = store.facts.value;
    if (!facts || store.isSaved.value) return [];
    const now = { cache: store.cacheName.value, prompt: store.prompt.value };
    const out = toTakeOut(store);
    const without: Choice[] =
      out.length === 0
        ? []
        : [{ against: { without: out }, name: `without ${out.join(", ")}`, words: "runs your model", refused: false }];
    return [...without, ...choicesOf(facts, now, listed.value?.caches ?? [])];
  });
  const matching = computed(() => {
    const needle = typed.value.trim().toLowerCase();
    return choices.value.filter(({ name }) => name.toLowerCase().includes(needle));
  });
  const options = computed(() => matching.value.slice(0, MOST));
  /** Why the list is empty. It says nothing about other caches if they could not be listed. */
  const whyEmpty = (): string => {
    const isFailed = failure.value !== "";
    if (listed.value === null && !isFailed && !store.isSaved.value) return "listing the caches …";
    if (choices.value.length > 0)
      return isFailed ? "No prompt has this name." : "No prompt and no cache has this name.";
    return isFailed ? "This cache has no other prompt." : "There is no other prompt and no other cache.";
  };

  const close = (refocus: boolean): void => {
    open.value = false;
    if (refocus) line.querySelector<HTMLElement>("[aria-haspopup]")?.focus();
  };
  const choose = (choice: Choice | undefined): void => {
    if (!choice || choice.refused) return;
    const { against } = choice;
    if (against.without) {
      takeOut(store, against.without);
      return close(true);
    }
    batch(() => {
      // A prompt can be compared with another prompt of its cache, but not with the mean over all its prompts.
      if (against.cache === null && store.prompt.peek() === null) store.prompt.value = against.prompt === 0 ? 1 : 0;
      store.against.value = against;
    });
    close(true);
  };
  const end = (): void => {
    batch(() => {
      store.against.value = null;
      if (store.replacedBy.peek() === "other") store.replacedBy.value = "zero";
    });
    close(true);
  };
  const start = (): void => {
    batch(() => {
      open.value = !open.peek();
      typed.value = failure.value = "";
      active.value = 0;
    });
    if (!open.peek() || store.isSaved.peek()) return;
    box.querySelector("input")?.focus({ preventScroll: true });
    client.latest("caches", { kind: "caches" }).then(
      (result) => result && (listed.value = result.reply),
      (error: unknown) => {
        if (signal.aborted || isOutdated(error, store)) return;
        failure.value = error instanceof Error ? error.message : String(error);
      },
    );
  };

  watch(signal, () => {
    const [first, second] = names.value ?? [];
    const why = store.runs.reasonNotDrawn("heads");
    const run = store.run.value;
    const words: Record<Run, string> = {
      first: `A: ${first}`,
      second: `B: ${second}`,
      difference: `B − A: ${second} minus ${first}`,
    };
    const signs: Record<Run, string> = { first: "A", second: "B", difference: "B − A" };
    const without = store.against.value?.without ?? [];
    const out = store.heads.value.length > 0 ? toTakeOut(store) : [];
    const isPlain = without.length === 0;
    parent.classList.toggle("rs-comparing", names.value !== null);
    parent.hidden = store.isSaved.value && names.value === null; // on a saved page, no run can be chosen
    render(
      html`<button type="button" class="rs-quiet rs-against-open ${why === null ? "" : "rs-refused"}"
          aria-haspopup="listbox" aria-expanded=${open.value}
          aria-label=${second === undefined ? "Compare with another run" : `Compared with ${second}`}
          title=${why === null ? COMPARE_WITH : legibleSentence(why)}
          @click=${start}>${
            isPlain
              ? html`<span class="rs-against-word"></span> ${second === undefined ? "…" : html`<b>${second}</b>`}`
              : "without"
          }</button>
        ${isPlain ? nothing : html`<span class="rs-chips-out">${without.map((head) => chip(store, head))}</span>`}
        ${
          store.isSaved.value || (isPlain && second !== undefined)
            ? nothing
            : html`<button type="button" class="rs-quiet rs-take-out ${out.length === 0 ? "rs-none" : ""}"
                aria-label="Take out ${out.join(", ")}"
                title="Compare with a run without ${out.join(", ")} (key t). This runs your model, between cells."
                @click=${() => takeOut(store, out)}>take out</button>`
        }
        ${isPlain ? nothing : whatIf(store)}
        ${
          second === undefined
            ? nothing
            : html`${
                isPlain
                  ? html`<button type="button" class="rs-quiet rs-remove" aria-label="End the comparison"
                title="End the comparison" @click=${end}>×</button>`
                  : nothing
              }
              <span class="rs-switch rs-run-switch" role="group" aria-label="Run in the head map">
                ${RUNS.map(
                  (name) => html`<button type="button" data-run=${name} aria-pressed=${run === name}
                    aria-label=${words[name]} title=${words[name]}
                    @click=${() => (store.run.value = name)}>${signs[name]}</button>`,
                )}</span>`
        }`,
      line,
    );
  });

  watch(signal, () => {
    box.hidden = !open.value;
    if (!open.value) return render(nothing, box);
    const more = matching.value.length - options.value.length;
    const at = Math.min(active.value, options.value.length - 1);
    render(
      html`<input type="text" role="combobox" aria-label="Compare with" aria-expanded="true" aria-autocomplete="list"
          aria-controls=${id} aria-activedescendant=${at >= 0 ? `${id}-${at}` : nothing} autocomplete="off"
          spellcheck="false" autocapitalize="off" placeholder="a prompt or a cache" .value=${typed.value}
          @input=${(event: Event) =>
            batch(() => {
              typed.value = (event.target as HTMLInputElement).value;
              active.value = 0;
            })}
          @keydown=${keys}>
        <div role="listbox" id=${id} aria-label="Runs to compare with">
          ${options.value.map(
            (choice, i) => html`<div role="option" id="${id}-${i}" class="rs-option ${choice.refused ? "rs-none" : ""}"
              aria-selected=${i === at} aria-disabled=${choice.refused ? "true" : nothing}
              @pointerenter=${() => (active.value = i)} @pointerdown=${(e: Event) => e.preventDefault()}
              @click=${() => choose(choice)}><span class="rs-name">${safe(choice.name, 30)}</span><small>${safe(
                choice.words,
                60,
              )}</small></div>`,
          )}
        </div>
        ${more > 0 ? html`<p>${more} more: type a number or a name.</p>` : nothing}
        ${options.value.length > 0 ? nothing : html`<p>${whyEmpty()}</p>`}
        ${failure.value ? html`<p class="rs-broken" role="alert">${prose(failure.value)}</p>` : nothing}`,
      box,
    );
  });

  function keys(event: KeyboardEvent): void {
    const count = options.peek().length;
    const at = Math.min(active.peek(), count - 1);
    if (event.key === "ArrowDown") active.value = count > 0 ? (at + 1) % count : 0;
    else if (event.key === "ArrowUp") active.value = count > 0 ? (at + count - 1) % count : 0;
    else if (event.key === "Enter") choose(options.peek()[at]);
    else if (event.key === "Escape") close(true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
  closeElsewhere(
    parent,
    () => open.peek(),
    () => close(false),
    signal,
  );
}
