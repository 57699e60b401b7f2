// The conservation badge: whether all rows add up to the model's own value. A click opens the calculation.
import { signal as state } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { plain, plural, signed, starred, vanishes } from "../../base/format";
import { legibleSentence, shown } from "../../base/legible";
import { element, watch } from "../../base/lifetime";
import type { Store } from "../../state/store";
import { isInside } from "../../state/target";
import { warningWords } from "../../state/warnings";
import { prose } from "../../ui/prose";
import { eachWords } from "./badge-each";
import { insideSum, scoreMeaning } from "./badge-inside";
import { brief, constantWords, explanation, fromToWords, lackingIn, missingWords, whoseOf } from "./badge-words";
import { rowSum, verdict } from "./ledger";

export function mountBadge(parent: HTMLElement, store: Store, signal: AbortSignal): void {
  const open = state(false);
  const status = element("div", "rs-badge", { role: "status", "aria-live": "polite" });
  const more = element("div", "rs-popover rs-reckoning", {
    role: "group",
    "aria-label": "How the rows add up",
    hidden: "",
  });
  parent.append(status, more);

  watch(signal, () => {
    const data = store.runs.rows.value;
    const run = store.runs.shown.value;
    const { whose, quantity } = whoseOf(run, store.quantity.value);
    const refused = store.runs.whyNoRows() !== null;
    if (!data || refused || store.runs.areLate.value) {
      const lacking = refused ? lackingIn(store.facts.value?.missing ?? []) : null;
      if (lacking)
        return render(
          html`<span class="rs-badge-text rs-misses" title=${lacking}>rows not complete<span
              class="rs-badge-long">: ${lacking}</span></span>`,
          status,
        );
      // If the cache has changed or is gone, only selections that were read before have a picture.
      const isLost = !data && store.statusNotice.value !== null && !store.statusNotice.value.isLive;
      const text = refused
        ? "the rows cannot be added up"
        : isLost
          ? "this selection was not read"
          : "adding up the rows …";
      const short = refused ? "no sum" : isLost ? "not read" : "adding up …";
      return render(
        html`<span class="rs-badge-text rs-pending" data-short=${short} data-figure=${short} title=${text}><span
            class="rs-badge-long">${text}</span></span>`,
        status,
      );
    }
    const { kind, measured, unexplained } = verdict(data);
    const sum = rowSum(data);
    const single = run === null || run === "first";
    const inside = single ? insideSum(store, data.reply.inner, sum) : null;
    const own = data.reply.own || isInside(store.target.value);
    const largest = Math.max(Math.abs(sum), Math.abs(measured ?? 0));
    const rows = vanishes(data.reply.constant, largest, 1) ? "rows" : "rows and constant";
    // Whether the values are old: from a cache that was changed or is gone, or from a saved picture.
    const notice = store.statusNotice.value;
    const past = (notice !== null && !notice.isLive) || store.isSaved.value;
    /** The values are right, but the variable of this name now holds another cache. */
    const isEarlier = notice?.isLive && store.isEarlier.value && run !== "second";
    const earlier = isEarlier ? ` · ${single ? "of" : "A is"} the earlier ${shown(store.cacheName.value)}` : "";
    // A second run without some heads is a run of the model. `replayed` says how an unchanged run compares with the
    // cache.
    const isWithout = !single && (store.against.value?.without ?? []).length > 0;
    const fromTo = isWithout && run === "difference" ? fromToWords(store.runs.heads.value) : "";
    const text =
      kind === "incomplete"
        ? "rows not complete: " +
          `${missingWords(data.reply.missing ?? [])}${
            measured === null ? "" : ` · ${whose} ${quantity} is ${signed(measured, largest, 1)}`
          }`
        : kind === "contradicts"
          ? `${rows} sum to ${signed(sum, largest, 1)}, not to the ${signed(measured, largest, 1)} in the same reply`
          : past && kind === "misses"
            ? `${rows} summed to ${signed(sum, largest, 1)}, ${whose} ${quantity} was ` +
              `${signed(measured, largest, 1)} · from an earlier picture`
            : past
              ? `${rows} summed to ${signed(sum, largest, 1)} · from an earlier picture`
              : kind === "agrees" && inside !== null
                ? `✓ ${rows} sum to ${inside}`
                : kind === "unmeasured" && inside !== null
                  ? `${rows} sum to ${inside.replace(", as cached", "")} · the cache does not have it to compare with`
                  : kind === "agrees" && own
                    ? `✓ ${rows} sum to ${signed(sum, largest, 1)}${fromTo} · ${whose} own ${quantity}`
                    : kind === "agrees"
                      ? `${rows} sum to ${signed(sum, largest, 1)} · not checked against the model’s logits`
                      : kind === "misses" && Math.abs(unexplained) <= data.reply.tolerance
                        ? `rows miss ${whose} ${quantity} by up to ` +
                          `${plain(data.reply.worst ?? 0, largest)} in a prompt`
                        : kind === "misses"
                          ? `rows miss ${signed(unexplained, largest)} of ${whose} ${quantity} ` +
                            `${signed(measured, largest)}`
                          : `${rows} sum to ${signed(sum, largest, 1)} · no logits in the cache to compare with`;
    const each = eachWords(store);
    const replayed = isWithout ? legibleSentence(store.runs.whatIf.replayed.value) : "";
    const summary = brief(
      kind,
      sum,
      unexplained !== null && Math.abs(unexplained) > data.reply.tolerance ? unexplained : null,
      own,
      past,
      largest,
    );
    const briefly = earlier === "" ? summary : `${summary} (earlier)`;
    const short = each === null ? briefly : `${briefly} · ${each.short}`;
    const count = store.notes.value.length;
    const mark =
      count === 0
        ? nothing
        : html` <span class="rs-notes-mark" role="img" aria-label=${plural(count, "note")}
            title="Notes on these values: click to read them">${count}<i>${
              count === 1 ? " note" : " notes"
            }</i></span>`;
    const warned = store.warnings.value.map((warning) => warningWords(warning)).join(", ");
    const warnedRuns = new Set(store.warnings.value.map(({ run }) => run));
    const [warnedRun = null] = warnedRuns.size === 1 ? warnedRuns : [];
    const affected = `all numbers${warnedRun === null ? "" : ` of ${warnedRun}`} are affected`;
    const warning =
      warned === ""
        ? nothing
        : html` <span class="rs-warning" role="img" aria-label="warning: ${warned}"
            title=${`Warning: ${warned}. Click to read why ${affected}.`}>⚠<i> ${warned}</i></span>`;
    // If there is no room for all parts, the one in the middle is left out; the tooltip has it.
    const isShort = isEarlier && kind === "agrees" && own; // the message beside it needs the room
    const said = isShort ? `✓ ${signed(sum, largest, 1)}${earlier}` : `${text}${earlier}`;
    const cut = said.indexOf(" · ");
    const [verdictWords, whoseWords] = cut < 0 ? [said, ""] : [said.slice(0, cut), said.slice(cut)];
    const tip = [starred(text + earlier), each?.words ?? "", replayed, scoreMeaning(store)]
      .filter((part) => part !== "")
      .join(". ");
    render(
      html`<button type="button"
          class="rs-badge-text rs-${
            kind === "contradicts" || kind === "incomplete"
              ? "misses"
              : each?.misses
                ? "misses"
                : past || (kind === "agrees" && !own)
                  ? "unmeasured"
                  : kind
          }" aria-expanded=${open.value} data-short=${short} data-figure=${briefly.replace(
            "adds up: ",
            "",
          )} title=${tip} @click=${() => (open.value = !open.value)}><span
            class="rs-badge-long">${verdictWords}<span class=${
              replayed ? "rs-badge-whose" : nothing
            }>${whoseWords}</span>${each === null ? nothing : ` · ${each.words}`}${
              replayed ? ` · ${replayed}` : nothing
            }</span>${warning}${mark}</button>`,
      status,
    );
  });

  watch(signal, () => {
    const data = store.runs.rows.value;
    more.hidden = !open.value || !data || store.runs.areLate.value;
    if (!data) return;
    const { constant, tolerance } = data.reply;
    const { kind, measured, unexplained } = verdict(data);
    const missing = store.facts.value?.missing ?? [];
    const largest = Math.max(Math.abs(rowSum(data)), Math.abs(measured ?? 0));
    const each = eachWords(store);
    const notes = store.notes.value; // the notes of the head rows come first: they explain gaps
    render(
      html`<p class="rs-words">${prose(
        explanation(data, whoseOf(store.runs.shown.value, store.quantity.value), store.facts.value?.dtype ?? "float32"),
      )}</p>
        ${each === null ? nothing : html`<p>${prose(each.whole)}</p>`}
        ${scoreMeaning(store) ? html`<p>${prose(scoreMeaning(store))}</p>` : nothing}
        ${
          store.isSaved.value
            ? html`<p>These values were saved. Their sum was checked again here; the model’s own value was not.</p>`
            : nothing
        }
        ${notes.length > 0 ? html`<ul>${notes.map((note) => html`<li>${prose(note)}</li>`)}</ul>` : nothing}
        <table><tbody>
          <tr><th scope="row">Σ rows</th><td class="rs-number">${signed(rowSum(data) - constant, largest, 2)}</td></tr>
          <tr><th scope="row">constant <small>${constantWords(store.target.value)}</small></th><td
              class="rs-number">${signed(constant, largest, 2)}</td></tr>
          ${
            unexplained !== null
              ? html`<tr><th
              scope="row">${
                kind === "incomplete" ? "not cached" : "unexplained"
              } <small>tolerance ${tolerance.toPrecision(2)}</small></th><td class="rs-number">${signed(
                unexplained,
                largest,
                2,
              )}</td></tr>`
              : nothing
          }
          ${
            unexplained !== null && data.reply.prompts > 1
              ? html`<tr><th scope="row">largest gap in a prompt</th><td
              class="rs-number">${plain(data.reply.worst ?? 0, largest, 2)}</td></tr>`
              : nothing
          }
        </tbody>
        <tfoot><tr><th scope="row">measured ${store.runs.quantity.value}</th><td
            class="rs-number">${
              measured !== null ? signed(measured, largest, 2) : "not in the cache"
            }</td></tr></tfoot></table>
        ${missing.length > 0 ? html`<p>Not in this cache: ${missing.join(", ")}.</p>` : nothing}`,
      more,
    );
  });

  parent.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "Escape" || !open.peek()) return;
      open.value = false;
      event.stopPropagation();
    },
    { signal },
  );
  parent.addEventListener(
    "focusout",
    (event) => {
      if (!(event.relatedTarget instanceof Node && parent.contains(event.relatedTarget))) open.value = false;
    },
    { signal },
  );
}
