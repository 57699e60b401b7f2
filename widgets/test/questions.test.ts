// The views and, in Python, a saved page make the same requests. `python -m tests.support.view_cases` writes the
// requests that are expected.
import { describe, expect, it } from "vitest";
import cases from "../../tests/wire/view_requests.json";
import { rowsOf } from "../dev/component-table";
import { keyOf } from "../src/snapshot/snapshot";
import * as questions from "../src/state/questions";
import { show } from "../src/state/selection";
import { Store } from "../src/state/store";
import { ofTheTab } from "../src/views/tabs";
import type { Ask } from "../src/wire/client";
import { DEFAULTS } from "../src/wire/protocol.check.gen";
import type { CacheFacts, Shown } from "../src/wire/protocol.gen";

describe.each(cases)("the requests for $name", ({ shown, facts, ranked, points, asks }) => {
  const store = new Store();
  show(store, shown as Shown);
  store.facts.value = facts as unknown as CacheFacts;
  const scene = questions.sceneOf(store);
  if (!scene) throw new Error("nothing is known of the cache");
  const whole = { ...scene, ranked, points: rowsOf(...points) };
  const asked: Record<keyof typeof asks, Ask[]> = {
    charts: questions.charts(whole.shown),
    choices: questions.choices(whole),
    cards: questions.cards(whole, store.heads.value),
    ofTheTab: ofTheTab(whole),
    inSmall: questions.inSmall(whole),
    inOne: questions.inOne(whole),
    lensTiles: questions.lensTiles(whole, whole.points),
    suggestions: [questions.suggestions(whole.shown)],
  };
  const keys = (some: unknown[]): string[] =>
    (some as Ask[]).map((ask) => keyOf(ask, { selection: shown as Shown, defaults: DEFAULTS })).sort();

  it.each(Object.keys(asks) as (keyof typeof asks)[])("%s", (group) => {
    expect(keys(asked[group])).toEqual(keys(asks[group]));
  });
});
