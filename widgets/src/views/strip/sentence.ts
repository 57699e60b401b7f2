// The sentence line: about the item under the pointer or with the focus, else about the head in focus. Its height is
// fixed; clauses that do not fit are left out completely.
import { signal as state, untracked } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { side } from "../../base/format";
import { legibleSentence } from "../../base/legible";
import { element, watch } from "../../base/lifetime";
import type { Sentence } from "../../base/sentence";
import { mapPicture } from "../../state/map-picture";
import type { Store } from "../../state/store";
import { prose } from "../../ui/prose";
import { mountFirstHint } from "./first-hint";
import type { Focus } from "./reading";
import { headClauses, WHICH_ADDS } from "./reading-words";

/** A saved picture has this hint if there is no sentence. A live view has a hint for the first visit only. */
const HINT: Sentence = ["Point at a head to see which tokens it reads. Click to pin it."];

export function mountSentence(parent: HTMLElement, store: Store, focus: Focus, signal: AbortSignal): void {
  const line = element("p", "rs-sentence", { "aria-live": "polite", "data-part": "sentence" });
  parent.append(line);
  const picture = mapPicture(store);
  const hasSentence = state(false);
  mountFirstHint(parent, store, hasSentence, signal);
  watch(signal, () => {
    const own = store.sentence.value;
    const name = store.hoveredHead.value ?? focus.head.value;
    const clauses = own ? [own] : name !== null ? headClauses(store, name, focus.said.value, picture.value) : [];
    const refused =
      name === null
        ? (store.runs.whyNoRows() ??
          store.runs.rows.value?.reply.refusal ??
          store.reasonNotDrawn("layers") ??
          store.reasonNotDrawn("lens"))
        : null;
    if (!own && refused !== null) clauses.splice(0, 1, [refused]);
    const why = !own && name !== null && name === focus.head.value ? focus.trouble.value : null;
    if (clauses.length === 0 && store.isSaved.value) clauses.push(HINT);
    if (why !== null && store.isAbsent(name ?? "")) clauses.splice(0, 1, [`${name}:`]); // `why` gives the reason
    const words = [
      ...clauses.map((clause) => clause.map((part) => (typeof part === "string" ? part : part.stress)).join("")),
      ...(why === null ? [] : [why]),
    ].join("; ");
    untracked(() => (hasSentence.value = words !== ""));
    line.classList.toggle("rs-hint", clauses[0] === HINT);
    line.classList.toggle("rs-clauses", clauses.length > 1 || why !== null);
    line.title = legibleSentence(words);
    const shown = [...clauses.map((clause) => html`${clause.map(rendered)}`), ...(why === null ? [] : [prose(why)])];
    render(
      shown.map(
        (clause, i) =>
          html`<span>${clause}${i < shown.length - 1 ? html`<i class="rs-unseen">;</i>` : nothing}</span> `,
      ),
      line,
    );
  });
}

function rendered(part: Sentence[number], nth: number, sentence: Sentence): TemplateResult {
  if (part === WHICH_ADDS) return html`<span class="rs-which-adds">${part}</span>`;
  if (typeof part !== "string") return html`<b class=${side(part.stress)}>${part.stress}</b>`;
  // A narrow panel closes the bracket after this element.
  return sentence[nth - 1] === WHICH_ADDS ? html`<span>${part}</span>` : html`${legibleSentence(part)}`;
}
