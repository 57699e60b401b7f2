// Features: the rows of an SAE or a transcoder. They replace the rows of the layers that sum to the
// reconstructed activation.
import { batch, computed, signal as state } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { plain, plural } from "../../base/format";
import { shown as legible, legibleSentence } from "../../base/legible";
import { element, watch } from "../../base/lifetime";
import { type ReadPicture, shownAs } from "../../export/pictures";
import { isOutdated } from "../../state/loader";
import { asking } from "../../state/query";
import { features as featuresAsked } from "../../state/questions";
import { FEATURE } from "../../state/store";
import { featureName } from "../../state/target";
import { ask } from "../../state/trail";
import { featuresOf } from "../../state/view-questions";
import { mountTrouble, noteChip } from "../../ui/caption";
import { prose } from "../../ui/prose";
import { float32 } from "../../wire/client";
import { componentsOf } from "../../wire/components";
import type { KnownSae } from "../../wire/protocol.gen";
import type { AttentionRoom } from "../attention/attention-room";
import { featureScale, mostWords } from "../strip/strip-feature";
import type { TabView } from "../tab-view";
import { badgeWords, type Found, featureLines, pageOf, verdict } from "./feature-lines";
import { FEW, MANY, mountFeatureList } from "./feature-list";
import { FEATURES } from "./features-export";
import { featuresPicture } from "./features-picture";

const LANE = "features";

export const features: TabView = {
  name: "Features",
  tip: "What the features of an SAE or a transcoder add to the target",
  chapter: () => "sae-features",
  isThere: ({ facts }) => (facts.value?.saes ?? []).length > 0,
  requests: ({ shown, facts }) => featuresOf(shown, facts.saes),
  options: () => [],
  mount,
};

function mount(
  parent: HTMLElement,
  _controls: HTMLElement,
  { store, client }: AttentionRoom,
  signal: AbortSignal,
): ReadPicture {
  const many = state(false);
  const failed = state<string | null>(null);
  const saes = computed(() => store.facts.value?.saes ?? []);
  const isOpen = computed(() => store.tab.value === "features" && saes.value.length > 0);
  const answered = asking<"features", Found>(
    LANE,
    store,
    client,
    signal,
    () => (isOpen.value ? featuresAsked(store.shown, saes.value) : null),
    ({ reply, buffers }) => ({ reply, values: float32(buffers[0]), activations: float32(buffers[1]) }),
  );

  const caption = element("div", "rs-caption");
  const sum = element("p", "rs-feature-sum", { role: "status" });
  const list = element("div", "rs-feature-list");
  const focus = element("div", "rs-feature-focus");
  const picture = element("div", "rs-feature-picture", {}, sum, focus, list);
  const trouble = element("p", "rs-view-trouble", { role: "note" });
  parent.append(caption, element("div", "rs-view-place", {}, picture, trouble));

  /** The choice of the SAE. If there is only one, its name. */
  function choice(first = ""): TemplateResult {
    const known = saes.value;
    const chosen = store.sae.value ?? (first || (known[0]?.name ?? ""));
    const isKnown = known.some(({ name }) => name === chosen);
    const named = ({ name, site }: KnownSae): string => legible(name) + (site === "" ? "" : ` · ${legible(site)}`);
    if (known.length === 1 && known[0] && isKnown) return html`<b class="rs-name">${named(known[0])}</b>`;
    const choose = (event: Event): void =>
      batch(() => {
        store.sae.value = (event.target as HTMLSelectElement).value;
        store.feature.value = null;
      });
    return html`<span class="rs-choice"><select aria-label="SAE" .value=${chosen} @change=${choose}>
        ${isKnown ? nothing : html`<option value=${chosen} selected>${legible(chosen)}</option>`}
        ${known.map((sae) => html`<option value=${sae.name} ?selected=${sae.name === chosen}>${named(sae)}</option>`)}
      </select></span>`;
  }

  const notDrawn = (): string | null =>
    featuresAsked(store.shown, saes.value) === null ? store.reasonNotDrawn("heads") : null;
  mountTrouble(trouble, picture, signal, () => (isOpen.value ? (answered.trouble.value ?? notDrawn()) : null));
  watch(signal, () => {
    const reply = answered.trouble.value === null ? answered.shown.value?.reply : undefined;
    const active = reply
      ? plural(reply.active, "feature") + (reply.prompts > 1 ? " active in a prompt" : " active here")
      : "";
    const words = reply ? `${legible(reply.cls)}: ${active}` : "";
    const from = reply && reply.read !== reply.site ? `, from ${legible(reply.read)}` : "";
    render(html`${choice(reply?.sae)}<span>${words}${from}</span>${noteChip(store, reply?.notes ?? [])}`, caption);
  });
  watch(signal, () => {
    void [store.path.value, store.feature.value, store.sae.value];
    failed.value = null;
  });
  watch(signal, () => picture.classList.toggle("rs-waiting", answered.waiting.value));
  watch(signal, () => void (store.tab.value === "features" || (many.value = false)));

  watch(signal, () => {
    const reply = answered.shown.value?.reply;
    if (!reply) return render(nothing, sum);
    const kind = verdict(reply);
    render(
      html`<span class="rs-badge-text rs-${kind}" data-verdict=${kind}
        title="The sum of the error, the bias and all features is compared with what the site itself adds (“Layers”)"
      >${badgeWords(reply)}</span>`,
      sum,
    );
  });

  const why = (feature: number): void => {
    if (store.isSaved.peek())
      return void (failed.value = "A question about a feature needs a kernel. A saved page has none.");
    const before = store.target.peek();
    client.latest("feature why", { kind: "feature-target", feature, sae: store.sae.peek() }).then(
      (result) => {
        // If the user has chosen another target meanwhile, this reply is too late.
        if (result && !signal.aborted && store.target.peek() === before) ask(store, result.reply.target);
      },
      (error: unknown) => {
        if (signal.aborted || isOutdated(error, store)) return;
        failed.value = error instanceof Error ? error.message : String(error);
      },
    );
  };
  const choose = (feature: number): void => {
    store.feature.value = feature === store.feature.peek() ? null : feature;
  };
  mountFeatureList(list, store, answered.shown, many, { choose, why }, signal);

  watch(signal, () => {
    const found = answered.shown.value;
    const feature = store.feature.value;
    if (!found) return render(nothing, focus);
    if (feature === null)
      return render(
        html`<span class="rs-feature-hint">Click a feature: its activation colours the tokens above.</span>`,
        focus,
      );
    const { reply, activations } = found;
    const at = componentsOf(reply.components).findIndex(({ kind, index }) => kind === "feature" && index === feature);
    const active = activations[at];
    const { mostActive } = featureLines(found, MANY);
    const page = pageOf(reply.links[at] ?? "");
    const tokens = store.featureShown.value;
    const notes = legibleSentence(tokens?.reply.notes.join(" ") ?? "");
    const failure = failed.value ?? store.problems.value.get(FEATURE) ?? null;
    const words = active === undefined ? "" : `activation ${active < 0 ? "−" : ""}${plain(active, mostActive)}`;
    const scale = tokens === null ? nothing : featureScale(tokens, store.theme.value);
    const name = featureName(feature, reply.site);
    const most = tokens === null || failure !== null ? null : mostWords(store, tokens);
    render(
      html`<b class="rs-feature-name" title=${name}>${name}</b>
        <button type="button" class="rs-quiet rs-feature-none" aria-label="Choose no feature"
          title="Choose no feature" @click=${() => (store.feature.value = null)}>✕</button>
        ${
          failure === null
            ? html`<span class="rs-feature-tokens" title=${notes || nothing}>${words} ${scale}</span>`
            : html`<span class="rs-feature-failed" role="alert" tabindex="0" title=${legibleSentence(failure)}>${prose(
                failure,
              )}</span>`
        }
        <span class="rs-feature-acts"><button type="button" class="rs-ask" title="What the feature reads, by heads and
          layers: the next step of the trail (w)" @click=${() => why(feature)}>why is it on?</button>
        ${
          page === null
            ? nothing
            : html`<a class="rs-feature-link" href=${page} target="_blank" rel="noopener noreferrer"
              title=${page}>Neuronpedia ↗</a>`
        }</span>
        ${
          most === null
            ? nothing
            : html`<span class="rs-feature-most" dir="auto" title=${legibleSentence(most)}>${most}</span>`
        }`,
      focus,
    );
  });

  return () => {
    const found = answered.waiting.peek() || answered.trouble.peek() !== null ? null : answered.shown.peek();
    return found && shownAs(FEATURES, featuresPicture(found, many.peek() ? MANY : FEW));
  };
}
