// What the tab "features" shows, as plain values for exports.
import { badgeWords, type Found, featureLines, othersName } from "./feature-lines";
import type { FeaturesPicture } from "./features-export";

/** The picture. It lists about `most` features; its table has all that the kernel sent. */
export function featuresPicture(found: Found, most: number): FeaturesPicture {
  const { cls, site } = found.reply;
  const shown = featureLines(found, most);
  const rest = (lines: typeof shown): FeaturesPicture["rows"] =>
    lines.others.count > 0 ? [{ name: othersName(lines), value: lines.others.value, activation: null }] : [];
  const all = featureLines(found, Number.POSITIVE_INFINITY);
  return {
    picture: "features",
    title: `${cls} of ${site}`,
    sum: badgeWords(found.reply).replace("✓ ", ""),
    rows: [...shown.lines.map(({ name, value, activation }) => ({ name, value, activation })), ...rest(shown)],
    all: [
      ...all.lines.map(({ component, value, activation }) => ({ name: component.label, value, activation })),
      ...(all.others.count > 0 ? [{ name: "other_features", value: all.others.value, activation: null }] : []),
    ],
  };
}
