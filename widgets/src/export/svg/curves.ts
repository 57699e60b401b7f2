// The logit lens as a curve and the layers as bars, on the same layer axis. A mean over prompts is drawn with its
// spread.
import { plural, signed } from "../../base/format";
import { limitOf } from "../../draw/colours";
import { band, polyline, type Slice } from "../../draw/polyline";
import { bars, lensX, percent } from "../../state/axis";
import type { LayersPicture, LensPicture, Row, Setting, Valued } from "../pictures";
import { type Box, layerAxes, runLines, scaleOf, withUnit } from "./axes";
import { GREY, INK, MINUS, MUTED, PLUS, Sheet, SINGLE } from "./sheet";
import { widthOf } from "./xml";

const LEFT = 36;

const captionOf = ({ source, target, place }: Setting, ...more: string[]): string[] => [
  ...source,
  target,
  place,
  ...more,
];
function spreadOf(rows: Valued[], what: string, { prompts }: Setting): string[] {
  return rows.some((row) => row.std !== null)
    ? [`${what}: ± one standard deviation over ${plural(prompts, "prompt")}`]
    : [];
}
const ends = (rows: Valued[]): number[] => rows.flatMap(({ value, std }) => [value - (std ?? 0), value + (std ?? 0)]);

export function lensFigure({ points, norm, lens }: LensPicture, setting: Setting): string {
  const sheet = new Sheet(SINGLE);
  const second = points.flatMap(({ runs, ...point }) => (runs ? { ...point, value: runs.second, std: null } : []));
  const convention = norm === "frozen" ? "final norm’s scale held fixed" : "final norm recomputed at each point";
  const top = sheet.heading(
    "Logit lens",
    `${setting.quantity} after each sublayer`,
    captionOf(
      setting,
      convention,
      ...(lens ? [`transported: ${lens}`] : []),
      ...(second.length > 0 ? [...runLines(setting), "A: line, B: dashed"] : []),
      ...spreadOf(points, "band", setting),
    ),
  );
  const box: Box = { x: LEFT, y: top, width: SINGLE - LEFT - 34, height: 112 };
  const scale = scaleOf([...ends(points), ...ends(second)], box);
  layerAxes(sheet, box, scale, setting.layers, withUnit(setting.quantity));
  const x = ({ component }: Row): number =>
    box.x + (percent(lensX(component, setting.layers), setting.layers) / 100) * box.width;
  const known = (point: Valued): boolean => Number.isFinite(point.value);
  const decimals = 2;
  if (points.some((point) => point.std !== null)) {
    const slices = points.map((point): Slice => {
      const spread = point.std ?? 0;
      return known(point) ? [x(point), scale(point.value - spread), scale(point.value + spread)] : null;
    });
    sheet.path(band(slices, decimals), `fill="${INK}" fill-opacity="0.12"`);
  }
  const curve = polyline(
    points.map((point) => (known(point) ? [x(point), scale(point.value)] : null)),
    decimals,
  );
  sheet.path(curve, `class="curve" fill="none" stroke="${INK}" stroke-width="1" stroke-linejoin="round"`);
  if (second.length > 0) {
    const other = polyline(
      second.map((point) => (known(point) ? [x(point), scale(point.value)] : null)),
      decimals,
    );
    sheet.path(
      other,
      `class="second" fill="none" stroke="${INK}" stroke-width="1" stroke-dasharray="3 2" stroke-linejoin="round"`,
    );
  }
  sheet.group("points", () =>
    points.forEach((point) => known(point) && sheet.circle(x(point), scale(point.value), 0.9, INK)),
  );
  const last = points.at(-1);
  if (last && known(last))
    sheet.text(x(last) + 4, scale(last.value) + 2.3, signed(last.value, limitOf(points.map(({ value }) => value))), {
      bold: true,
    });
  return sheet.end(box.y + box.height + 24, `Logit lens: ${setting.quantity}`);
}

export function layersFigure({ rows }: LayersPicture, setting: Setting): string {
  const sheet = new Sheet(SINGLE);
  const compared = rows.some(({ runs }) => runs !== undefined);
  const top =
    sheet.heading(
      "Layers",
      `what each adds to the ${setting.quantity}`,
      captionOf(
        setting,
        ...(compared ? [...runLines(setting), "left, dark: A; right, pale: B"] : []),
        ...spreadOf(rows, "lines", setting),
      ),
    ) + 3;
  const places = bars(rows.map((row) => row.component));
  const others = places.some((bar) => bar.kind === "other");
  key(sheet, top, others);
  const box: Box = { x: LEFT, y: top + 8, width: SINGLE - LEFT - 8, height: 100 };
  const scale = scaleOf([...ends(rows), ...rows.map(({ runs }) => runs?.second ?? NaN)], box);
  layerAxes(sheet, box, scale, setting.layers, withUnit(setting.quantity));
  const at = (x: number): number => box.x + (percent(x, setting.layers) / 100) * box.width;
  sheet.group("bars", () => {
    for (const bar of places) {
      const value = rows[bar.index]?.value ?? NaN;
      if (!Number.isFinite(value)) continue;
      const [from, to] = [at(bar.from), at(bar.to)];
      const gap = (to - from) * 0.12;
      const drawn = (value: number, left: number, width: number, opacity = 1): void =>
        sheet.rect(
          left,
          Math.min(scale(0), scale(value)),
          width,
          Math.abs(scale(value) - scale(0)),
          bar.kind === "attention" ? (value < 0 ? MINUS : PLUS) : bar.kind === "mlp" ? GREY : "#ffffff",
          { ...(bar.kind === "other" ? { stroke: GREY } : {}), ...(opacity < 1 ? { opacity } : {}) },
        );
      const second = rows[bar.index]?.runs?.second ?? NaN;
      if (!Number.isFinite(second)) {
        drawn(value, from + gap, to - from - 2 * gap);
        continue;
      }
      const half = (to - from - gap) / 2;
      drawn(value, from + gap / 2, half);
      drawn(second, from + gap / 2 + half, half, 0.5);
    }
  });
  for (const bar of places) {
    const { value = NaN, std = null } = rows[bar.index] ?? {};
    if (std !== null && Number.isFinite(value))
      sheet.line(
        at((bar.from + bar.to) / 2),
        scale(value - std),
        at((bar.from + bar.to) / 2),
        scale(value + std),
        INK,
        0.45,
      );
  }
  return sheet.end(box.y + box.height + 24, `Layers: what each adds to the ${setting.quantity}`);
}

function key(sheet: Sheet, y: number, others: boolean): void {
  let x = LEFT;
  const entry = (name: string, ...fills: string[]): void => {
    for (const fill of fills) {
      sheet.rect(x, y - 5.5, 3, 6.5, fill, fill === "#ffffff" ? { stroke: GREY } : {});
      x += 4.2;
    }
    sheet.text(x + 1.5, y, name, { fill: MUTED });
    x += widthOf(name) * 6.5 + 9;
  };
  entry("attention: adds, takes away", PLUS, MINUS);
  entry("MLP", GREY);
  if (others) entry("embeddings, other", "#ffffff");
}
