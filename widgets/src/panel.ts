// Lays the views out. Knows the store and the client; not who carries the messages.
import type { Client } from "./client";
import { keepKeys } from "./keys";
import { element, watch } from "./lifetime";
import { load } from "./loader";
import { IN_PLACE, type Store } from "./store";
import { followTheme } from "./theme";
import { mountHeader } from "./views/header";
import { mountHeads } from "./views/heads";
import { mountLayers } from "./views/layers";
import { mountLens } from "./views/lens";
import { mountLower } from "./views/lower";
import { mountNotice } from "./views/notice";
import { mountRanking } from "./views/ranking";
import { mountSentence } from "./views/sentence";
import { mountTokens } from "./views/tokens";

export function mountPanel(parent: HTMLElement, store: Store, client: Client, signal: AbortSignal): void {
  client.padding = () => store.padding.peek();
  const root = element("div", "residscope", { role: "region", "aria-label": "Residscope" });
  const area = (name: string): HTMLElement => element("section", `rs-${name}`);
  const header = element("header", "rs-header");
  const tokens = area("strip");
  const curves = area("curves");
  const lens = element("div", "rs-lens-place");
  const layers = element("div", "rs-layers-place");
  const heads = area("heads");
  const ranking = area("rank");
  const lower = area("lower");
  const footer = element("footer", "rs-footer");
  const notice = element("div", "rs-notices");
  curves.append(lens, layers);
  const charts = element("div", "rs-charts", {}, curves, heads, ranking, notice);
  root.append(element("div", "rs-box", {}, header, tokens, charts, lower, footer));

  followTheme(store, signal);
  watch(signal, () => {
    root.dataset["theme"] = store.theme.value;
  });
  watch(signal, () => {
    const loading = client.inFlight.value > 0;
    const failed = client.lost.value || [...store.problems.value.keys()].some((lane) => lane !== "tokens" && !IN_PLACE.has(lane));
    root.dataset["state"] = failed ? "error" : loading ? "loading" : "ready";
    root.setAttribute("aria-busy", String(loading));
  });

  watch(signal, () => {
    root.toggleAttribute("data-computing", store.computing.value > 0);
  });

  mountHeader(header, store, client, signal);
  mountTokens(tokens, store, client, signal);
  mountLens(lens, store, client, signal);
  mountLayers(layers, store, client, signal);
  mountLower(lower, store, client, signal); // before what a gesture paints: its request is on the way meanwhile
  mountHeads(heads, store, client, signal);
  mountRanking(ranking, store, client, signal);
  mountSentence(footer, store, client, signal);
  mountNotice(notice, store, client, signal);
  load(store, client, signal);

  root.addEventListener("keydown", (event) => {
    const within = (...places: HTMLElement[]): boolean => places.some((p) => event.target instanceof Node && p.contains(event.target));
    if (event.key === "Escape") store.escape(within(tokens), within(layers, ranking));
  }, { signal });
  keepKeys(root, signal);

  parent.append(root);
  signal.addEventListener("abort", () => root.remove(), { once: true });
}
