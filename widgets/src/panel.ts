// Creates the views and their layout. It uses the store and the client, and does not depend on the host.

import { isInText, isPlainKey, isUndo, keepKeys, trailStepOf } from "./base/keyboard";
import { element, watch } from "./base/lifetime";
import { load } from "./state/loader";
import { makeRuns } from "./state/making";
import { measure } from "./state/measuring";
import { effects } from "./state/questions";
import { IN_PLACE, type Store } from "./state/store";
import { takeOut, toTakeOut } from "./state/take-out";
import { isInside, isSet } from "./state/target";
import { go } from "./state/trail";
import { mountFold } from "./ui/fold";
import { freeHeight } from "./ui/free-height";
import { keepInSight } from "./ui/keep-in-sight";
import { rowHeight } from "./ui/row-height";
import { followTheme } from "./ui/theme";
import { AttentionRoom } from "./views/attention/attention-room";
import { mountHeader } from "./views/header/header";
import { mountNotice } from "./views/header/notice";
import { mountHeads } from "./views/heads/heads";
import { mountRanking } from "./views/heads/ranking";
import { mountAskHere } from "./views/strip/ask-here";
import { mountReading } from "./views/strip/reading";
import { mountSentence } from "./views/strip/sentence";
import { mountTokens } from "./views/strip/tokens";
import { mountLower } from "./views/tabs";
import type { Client } from "./wire/client";

export function mountPanel(parent: HTMLElement, store: Store, client: Client, signal: AbortSignal): void {
  client.padding = () => store.padding.peek();
  const root = element("div", "residscope", { role: "region", "aria-label": "Residscope" });
  const area = (name: string): HTMLElement => element("section", `rs-${name}`);
  const header = element("header", "rs-header");
  const tokens = area("strip");
  const says = element("div", "rs-says");
  const sight = element("div", "rs-sight", {}, tokens);
  const heads = area("heads");
  const ranking = area("rank");
  const lower = area("lower");
  const notice = element("div", "rs-notices");
  const charts = element("div", "rs-charts", {}, heads, lower, ranking);
  root.append(element("div", "rs-box", {}, header, sight, says, charts));

  followTheme(root, signal, store);
  watch(signal, () => {
    const loading = client.inFlight.value > 0;
    const failed =
      client.lost.value ||
      client.unanswered.value ||
      [...store.problems.value.keys()].some((lane) => lane !== "tokens" && !IN_PLACE.has(lane));
    root.dataset["state"] = failed ? "error" : loading ? "loading" : "ready";
    root.setAttribute("aria-busy", String(loading));
  });

  watch(signal, () => {
    root.toggleAttribute("data-computing", store.computing.value > 0);
  });
  watch(signal, () => {
    root.dataset["late"] = [...store.late.value].map((lane) => lane.replaceAll(" ", "-")).join(" ");
  });

  const free = freeHeight(root, signal);
  const row = rowHeight(store, free, () => heads.querySelector<HTMLElement>(".rs-axes"), [header, sight], signal);
  // Set only where it is used: at the root, each change would compute the styles of the whole panel again.
  watch(signal, () => lower.style.setProperty("--free", `${free.height.value}px`));

  const room = new AttentionRoom(store, client);
  mountHeader(header, store, client, signal);
  mountLower(lower, room, signal); // first: it sends its request before other views paint
  const focus = mountReading(room, signal);
  mountTokens(tokens, store, client, focus, signal);
  mountSentence(says, store, focus, signal);
  mountAskHere(says, root, store, signal);
  says.append(notice);
  mountHeads(heads, store, row, signal);
  mountRanking(ranking, store, client, signal);
  mountFold(ranking, "ranking", "Ranking", store, signal);
  mountFold(lower, "views", "Views", store, signal);
  mountNotice(notice, header, store, client, signal);
  keepInSight(says, root, signal);
  load(store, client, signal);
  makeRuns(store, client, signal);
  // While the view is hidden, the kernel measures nothing. (Older browsers do not report whether it is hidden.)
  const isHidden = (): boolean => root.checkVisibility?.() === false;
  measure(
    store.effects.heads,
    store,
    client,
    {
      question: () =>
        store.effectShown.value === "direct" || !isSet(store.target.value) ? null : effects(store.shown, "heads"),
      isEnough: ({ estimate }) => store.effect.peek() === "estimate" && estimate.some(Number.isFinite),
      isHidden,
    },
    signal,
  );

  // A key moved to another head: scroll to the map, then to the token strip. If both fit, both are then visible.
  watch(signal, () => {
    if (store.headMoves.value === 0) return;
    for (const node of [heads, sight]) node.scrollIntoView({ block: "nearest", inline: "nearest" });
  });

  // A target was added to the trail: scroll to the tab "why", then to the target and the trail. If both fit, both are
  // then visible.
  watch(signal, () => {
    root.toggleAttribute("data-why", store.tab.value === "why" && isInside(store.target.value));
  });
  watch(signal, () => {
    if (store.trailAdditions.value === 0) return;
    for (const node of [lower, header]) node.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  // At another step of the trail, the element with the focus may be hidden. The selected tab then gets the focus, so
  // that keys do not go to the notebook.
  watch(signal, () => {
    void store.path.value;
    void store.trailAdditions.value;
    const place = root.getRootNode();
    const focused = (place instanceof ShadowRoot ? place : document).activeElement;
    if (focused && root.contains(focused) && focused.closest("[hidden]"))
      lower.querySelector<HTMLElement>('[role="tab"][aria-selected="true"]')?.focus({ preventScroll: true });
  });

  const layers = (): HTMLElement => heads.querySelector<HTMLElement>(".rs-layers-place") ?? heads;
  root.addEventListener(
    "keydown",
    (event) => {
      const within = (...places: HTMLElement[]): boolean =>
        places.some((p) => event.target instanceof Node && p.contains(event.target));
      const isCommand = isPlainKey(event) && !isInText(event) && !(event.target instanceof HTMLSelectElement);
      if (event.key === "t" && isCommand) {
        event.preventDefault();
        // If the view compares with another run, the key does not replace this comparison.
        const isOther = store.against.peek() !== null && !store.against.peek()?.without?.length;
        return isOther ? undefined : takeOut(store, toTakeOut(store));
      }
      if (event.key === "Escape") store.escape(within(tokens), within(layers(), ranking));
      const by = trailStepOf(event);
      if (by !== null) {
        event.preventDefault();
        return go(store, store.path.peek().at + by);
      }
      if (!isUndo(event)) return;
      event.preventDefault();
      store.undo();
    },
    { signal },
  );
  keepKeys(root, signal);

  parent.append(root);
  signal.addEventListener("abort", () => root.remove(), { once: true });
}
