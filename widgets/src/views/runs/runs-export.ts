// How the scatter plots are exported: what each head adds in A (across) and in B (up), or the direct and the total
// effect of each head.
import { signed } from "../../base/format";
import { RUNS as COLUMNS } from "../../export/charts";
import type { Measured, PictureKind, Setting } from "../../export/pictures";
import { axisNames, type Box, number, runLines, withUnit } from "../../export/svg/axes";
import { effectLines } from "../../export/svg/heads";
import { GREY, INK, MINUS, MUTED, PLUS, RULE, Sheet, SINGLE } from "../../export/svg/sheet";
import { widthOf } from "../../export/svg/xml";
import { axisWords } from "../../state/effect-words";
import type { Pair } from "../../state/ranked";
import { colouringName, isMinus, RUN_AXES, spotOf } from "../../state/scatter";
import { type Letters, placesOfNames } from "./scatter-name";

export interface RunsPicture {
  picture: "runs";
  /** The names of the axes, and of their difference: A, B, B − A. */
  axes: readonly [string, string, string];
  /** The heads. Those that differ most come first. */
  heads: Pair[];
  /** The ends of both axes. */
  low: number;
  high: number;
  /** Which number of a head colours it. */
  colouredBy: "second" | "value";
  pinned: string[];
  /** The effect that is shown; left out for two runs. */
  measured?: Measured;
}

export const RUNS: PictureKind<RunsPicture> = {
  title: () => "Runs: heads",
  // The difference of two runs is second − first.
  table: ({ axes, heads }) => ({
    columns: ["head", ...(axes[0] === RUN_AXES[0] ? [...COLUMNS, "difference"] : axes)],
    rows: heads.map(({ name, first, second, value }) => [name, first, second, value]),
  }),
  figure,
};

const LEFT = 36;
/** The number of heads that have their names next to them: the heads that differ most. */
const NAMED = 8;
const SIZE = 5.5;
const IN_PRINT: Letters = { width: (name) => widthOf(name) * SIZE, height: 6.5, apart: 3 };

function figure(picture: RunsPicture, setting: Setting): string {
  const { heads, low, high, pinned, axes, measured, colouredBy } = picture;
  const sheet = new Sheet(SINGLE);
  const isPutIn = measured?.found.isPutIn ?? false;
  const what = !measured
    ? `what each head adds to the ${setting.quantity} in two runs`
    : isPutIn
      ? `the change of the ${setting.quantity} with B’s output of each head`
      : `what each head adds to the ${setting.quantity}`;
  const about = measured
    ? [...effectLines(measured, setting).filter((line) => !line.includes("hatched")), ...countLine(picture)]
    : runLines(setting);
  const by = colouringName({ axes, colouredBy });
  const difference = measured ? `${axes[2]}, ${axes[1]} − ${axes[0]}` : axes[2];
  const lines = [
    ...setting.source,
    setting.target,
    setting.place,
    ...about,
    measured ? `dashed: ${axes[1]} = ${axes[0]}` : "dashed: the same in both",
    `blue: ${by} above 0`,
    `numbers: ${difference}`,
  ];
  const top = sheet.heading(measured ? "Direct and total effects" : "Runs", what, lines) + 4;
  const side = SINGLE - LEFT - 14;
  const box: Box = { x: LEFT, y: top, width: side, height: side };
  const scatter = { heads, low, high, axes, colouredBy };
  const at = (pair: { first: number; second: number }): [number, number] => {
    const { x, y } = spotOf(scatter, pair);
    return [box.x + (x / 100) * side, box.y + (y / 100) * side];
  };
  const [zeroX, zeroY] = at({ first: 0, second: 0 });
  sheet.line(zeroX, box.y, zeroX, box.y + side, RULE);
  sheet.line(box.x, zeroY, box.x + side, zeroY, RULE);
  sheet.path(
    `M${box.x} ${box.y + side}L${box.x + side} ${box.y}`,
    `fill="none" stroke="${GREY}" stroke-width="0.6" stroke-dasharray="3 2"`,
  );
  sheet.line(box.x, box.y + side, box.x + side, box.y + side, MUTED);
  sheet.line(box.x, box.y, box.x, box.y + side, MUTED);
  const largest = Math.max(high, -low);
  for (const value of [low / 1.06, high / 1.06]) {
    const [x, y] = at({ first: value, second: value });
    const text = number(Number(value.toPrecision(2)));
    sheet.text(x, box.y + side + 9, text, { anchor: "middle", fill: MUTED });
    sheet.text(box.x - 4, y + 2.2, text, { anchor: "end", fill: MUTED });
  }
  sheet.group("heads", () =>
    heads.forEach((head) => sheet.circle(...at(head), 1.3, isMinus(scatter, head) ? MINUS : PLUS)),
  );
  const named = heads
    .filter(({ name }, i) => i < NAMED || pinned.includes(name))
    .map((head) => ({
      name: `${head.name} ${signed(head.value, largest)}`,
      at: spotOf(scatter, head),
      isSure: pinned.includes(head.name),
    }))
    .sort((a, b) => Number(b.isSure) - Number(a.isSure));
  const zero = spotOf(scatter, { first: 0, second: 0 });
  const dots = heads.map((head) => spotOf(scatter, head));
  placesOfNames(named, zero, dots, side / 100, IN_PRINT).forEach((place, i) => {
    const head = named[i];
    if (!place || !head) return;
    const [x, y] = [box.x + (head.at.x / 100) * side, box.y + (head.at.y / 100) * side];
    sheet.text(x + (place.isLeft ? -IN_PRINT.apart : IN_PRINT.apart), y + place.down + 2, head.name, {
      size: SIZE,
      anchor: place.isLeft ? "end" : "start",
      ...(head.isSure ? { bold: true } : {}),
      fill: INK,
    });
  });
  const name = (axis: string): string => (measured ? axisWords(axis, isPutIn) : axis);
  axisNames(sheet, box, `${name(axes[0])}: ${withUnit(setting.quantity)}`, name(axes[1]));
  return sheet.end(box.y + side + 26, `Runs: ${what}`);
}

/** How many heads are shown, if some are not measured yet. */
function countLine({ heads, measured }: RunsPicture): string[] {
  const total = measured?.found.reply.total ?? 0;
  return measured?.effect !== "estimate" && heads.length < total ? [`${heads.length} of ${total} measured`] : [];
}
