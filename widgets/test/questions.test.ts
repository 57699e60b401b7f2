// The views and, in Python, a saved page make the same requests. `python -m tests.support.view_cases` writes the
// requests that are expected.
import { describe, expect, it } from "vitest";
import cases from "../../tests/wire/view_requests.json";
import { rowsOf } from "../dev/component-table";
import { keyOf } from "../src/snapshot/snapshot";
import { suggestions } from "../src/state/questions";
import { sceneOf } from "../src/state/scene";
import { show } from "../src/state/selection";
import { Store } from "../src/state/store";
import * as views from "../src/state/view-questions";
import { ofTheTab } from "../src/views/tabs";
import type { Ask } from "../src/wire/client";
import { DEFAULTS } from "../src/wire/protocol.check.gen";
import type { CacheFacts, Shown } from "../src/wire/protocol.gen";

describe.each(cases)("the requests for $name", ({ shown, facts, ranked, points, asks }) => {
  const store = new Store();
  show(store, shown as Shown);
  store.facts.value = facts as unknown as CacheFacts;
  const scene = sceneOf(store);
  if (!scene) throw new Error("nothing is known of the cache");
  const whole = { ...scene, ranked, points: rowsOf(...points) };
  const asked: Record<keyof typeof asks, Ask[]> = {
    charts: views.charts(whole.shown),
    choices: views.choices(whole),
    cards: views.cards(whole, store.heads.value),
    ofTheTab: ofTheTab(whole),
    inSmall: views.inSmall(whole),
    inOne: views.inOne(whole),
    lensTiles: views.lensTiles(whole, whole.points),
    suggestions: [suggestions(whole.shown)],
  };
  const keys = (some: unknown[]): string[] =>
    (some as Ask[]).map((ask) => keyOf(ask, { selection: shown as Shown, defaults: DEFAULTS })).sort();

  it.each(Object.keys(asks) as (keyof typeof asks)[])("%s", (group) => {
    expect(keys(asked[group])).toEqual(keys(asks[group]));
  });
});
