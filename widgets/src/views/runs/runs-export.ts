// How the comparison of two runs, head by head, is exported. In the figure, the horizontal axis is A, the vertical axis
// is B, and heads on the dashed line add the same in both runs.
import { signed } from "../../base/format";
import { RUNS as COLUMNS } from "../../export/charts";
import type { PictureKind, Setting } from "../../export/pictures";
import { axisNames, type Box, number, runLines, withUnit } from "../../export/svg/axes";
import { GREY, INK, MINUS, MUTED, PLUS, RULE, Sheet, SINGLE } from "../../export/svg/sheet";
import type { Pair } from "../../state/ranked";
import { RUN_AXES, spotOf } from "../../state/scatter";

/** What each head adds in two compared runs; or the direct and the total effect of each head. */
export interface RunsPicture {
  picture: "runs";
  /** The names of the axes, and of their difference: A, B, B − A. */
  axes: readonly [string, string, string];
  /** The heads. Those that differ most come first. */
  heads: Pair[];
  /** The ends of both axes. */
  low: number;
  high: number;
  pinned: string[];
}

export const RUNS: PictureKind<RunsPicture> = {
  title: () => "Runs",
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

function figure(picture: RunsPicture, setting: Setting): string {
  const { heads, low, high, pinned, axes } = picture;
  const sheet = new Sheet(SINGLE);
  const isOfRuns = axes[0] === RUN_AXES[0];
  const added = `what each head adds to the ${setting.quantity}`;
  const what = isOfRuns ? `${added} in two runs` : `${added}: ${axes[0]} and ${axes[1]} effect`;
  const lines = [...setting.source, setting.target, setting.place, ...(isOfRuns ? runLines(setting) : [])];
  const top = sheet.heading("Runs", what, [...lines, "dashed: the same in both"]) + 4;
  const side = SINGLE - LEFT - 14;
  const box: Box = { x: LEFT, y: top, width: side, height: side };
  const scatter = { heads, low, high, axes };
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
  sheet.group("heads", () => heads.forEach((head) => sheet.circle(...at(head), 1.3, head.value < 0 ? MINUS : PLUS)));
  const named = heads.filter(({ name }, i) => i < NAMED || pinned.includes(name));
  for (const head of named) {
    const [x, y] = at(head);
    const end = x > box.x + side * 0.8;
    sheet.text(x + (end ? -3 : 3), y + 2, `${head.name} ${signed(head.value, largest)}`, {
      size: 5.5,
      anchor: end ? "end" : "start",
      ...(pinned.includes(head.name) ? { bold: true } : {}),
      fill: INK,
    });
  }
  axisNames(sheet, box, `${axes[0]}: ${withUnit(setting.quantity)}`, axes[1]);
  return sheet.end(box.y + side + 26, `Runs: ${what}`);
}
