// What the tab "why" shows, as plain values for exports.

import { plural } from "../../base/format";
import type { Store } from "../../state/store";
import { quantity, scoreIn } from "../../state/target";
import type { WhyData } from "./why-data";
import type { WhyPicture } from "./why-export";
import { linesOf, nameOf } from "./why-lines";

/** The picture; null while there is nothing to show. A column lists about `most` components. */
export function whyPicture(store: Store, data: WhyData, most: number): WhyPicture | null {
  if (scoreIn(store.target.value) !== null && store.whyShows.value === "pairs") {
    const found = data.pairs.shown.value;
    if (!found) return null;
    const { reply, query, key, values } = found;
    const others = (count: number): string => plural(count, "other");
    return {
      picture: "why",
      columns: [],
      pairs: {
        rows: [...query.map(nameOf), others(reply.query_others)],
        columns: [...key.map(nameOf), others(reply.key_others)],
        values,
      },
    };
  }
  const columns = data.columns.value.map(({ title, note, attribution, target }) => {
    const all = linesOf(attribution, target, Number.POSITIVE_INFINITY, store.parallel.value);
    const { lines, others, total } = linesOf(attribution, target, most, store.parallel.value);
    return {
      title,
      note,
      quantity: (store.isMean.value ? "mean " : "") + quantity(target, store.prompt.value),
      total,
      rows: [
        ...lines.map(({ name, value }) => ({ name, value })),
        ...(others.count > 0 ? [{ name: plural(others.count, "other"), value: others.value }] : []),
      ],
      all: all.lines.map(({ component, name, value }) => ({ name: component?.label ?? name, value })),
    };
  });
  return columns.length > 0 ? { picture: "why", columns, pairs: null } : null;
}
