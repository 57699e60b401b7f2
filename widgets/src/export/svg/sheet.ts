// A figure for print, as SVG text: white background, units of points (1/72 inch), a group for each kind of mark. It
// loads nothing.
import { SIGNS } from "../../base/look.gen";
import type { Rgb } from "../../draw/colours";
import { cut, widthOf, xml } from "./xml";

export const INK = "#1d2023";
export const MUTED = "#5b6065";
export const RULE = "#cfd2d2";
export const { plus: PLUS, minus: MINUS } = SIGNS.light;
export const GREY = "#a3a7ab";
const SANS = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif";
const MONO = "Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace";
const POINTS_PER_MM = 72 / 25.4;
/** The width of one column of a paper, and of two. */
export const SINGLE = 85 * POINTS_PER_MM;
export const DOUBLE = 178 * POINTS_PER_MM;
export const MARGIN = 5;

export interface Style {
  size?: number;
  anchor?: "start" | "middle" | "end";
  fill?: string;
  bold?: boolean;
  mono?: boolean;
  /** Degrees, about the text's own position. */
  rotate?: number;
}

const round = (value: number): string => String(Math.round(value * 100) / 100 || 0);
export const hex = ([r, g, b]: Rgb): string =>
  `#${[r, g, b].map((part) => part.toString(16).padStart(2, "0")).join("")}`;

export class Sheet {
  readonly #parts: string[] = [];
  readonly #defined = new Set<string>();

  constructor(readonly width: number) {}

  rect(
    x: number,
    y: number,
    width: number,
    height: number,
    fill: string,
    more: { stroke?: string; radius?: number; opacity?: number } = {},
  ): void {
    const opacity = more.opacity === undefined ? "" : ` fill-opacity="${more.opacity}"`;
    const stroke = more.stroke ? ` stroke="${more.stroke}" stroke-width="0.6"` : "";
    this.#parts.push(
      `<rect x="${round(x)}" y="${round(y)}" width="${round(width)}" height="${round(height)}" fill="${fill}` +
        `"${opacity}${stroke}${more.radius ? ` rx="${round(more.radius)}"` : ""}/>`,
    );
  }
  line(x1: number, y1: number, x2: number, y2: number, stroke = RULE, width = 0.5): void {
    this.#parts.push(
      `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" stroke="${stroke}" ` +
        `stroke-width="${width}"/>`,
    );
  }
  path(d: string, attributes: string): void {
    this.#parts.push(`<path d="${d}" ${attributes}/>`);
  }
  circle(x: number, y: number, radius: number, fill: string): void {
    this.#parts.push(`<circle cx="${round(x)}" cy="${round(y)}" r="${radius}" fill="${fill}"/>`);
  }
  image(x: number, y: number, width: number, height: number, address: string): void {
    this.#parts.push(
      `<image x="${round(x)}" y="${round(y)}" width="${round(width)}" height="${round(height)}" ` +
        `preserveAspectRatio="none" style="image-rendering:pixelated" href="${xml(address)}"/>`,
    );
  }
  /** Writes a text. Each part is isolated, so that right-to-left text does not change the direction of other parts. */
  text(
    x: number,
    y: number,
    text: string | string[],
    { size = 6.5, anchor = "start", fill = INK, bold = false, mono = false, rotate = 0 }: Style = {},
  ): void {
    const attributes = [
      rotate === 0
        ? `x="${round(x)}" y="${round(y)}"`
        : `transform="translate(${round(x)} ${round(y)}) rotate(${rotate})"`,
      `font-size="${size}" fill="${fill}"`,
      anchor === "start" ? "" : `text-anchor="${anchor}"`,
      bold ? 'font-weight="600"' : "",
      mono ? `font-family="${MONO}"` : "",
    ];
    const spans = [text].flat().map((part) => `<tspan style="unicode-bidi:isolate">${xml(part)}</tspan>`);
    this.#parts.push(`<text ${attributes.filter(Boolean).join(" ")} direction="ltr">${spans.join(" · ")}</text>`);
  }
  /** Puts all marks of a kind into one group, so that they can be selected together in a drawing program. */
  group(kind: string, draw: () => void): void {
    this.#parts.push(`<g class="${kind}">`);
    draw();
    this.#parts.push("</g>");
  }
  /** Defines a gradient, left to right or bottom to top, and returns it as a fill. */
  gradient(id: string, upright: boolean, colourAt: (t: number) => Rgb): string {
    if (!this.#defined.has(id)) {
      const stops = Array.from(
        { length: 33 },
        (_, i) => `<stop offset="${round((i / 32) * 100)}%" stop-color="${hex(colourAt(i / 32))}"/>`,
      );
      this.#parts.push(
        `<defs><linearGradient id="${id}" x1="0" y1="${upright ? 1 : 0}" x2="${upright ? 0 : 1}" ` +
          `y2="0">${stops.join("")}</linearGradient></defs>`,
      );
      this.#defined.add(id);
    }
    return `url(#${id})`;
  }

  /**
   * Writes the name in bold, a description, and below them the caption in as many lines as it needs. Returns the y at
   * which the picture may begin.
   */
  heading(name: string, words: string, caption: string[]): number {
    let y = MARGIN + 7.5;
    this.text(MARGIN, y, name, { size: 8, bold: true });
    const room = this.width - 2 * MARGIN;
    const beside = MARGIN + widthOf(name) * 8.6 + 5;
    const fits = beside + widthOf(words) * 6.5 <= this.width - MARGIN;
    if (words && fits) this.text(beside, y, words, { fill: MUTED });
    const lines = [...(words && !fits ? wrapped([words], room / 6) : []), ...wrapped(caption, room / 6)];
    for (const line of lines) this.text(MARGIN, (y += 8.5), line, { size: 6, fill: MUTED });
    return y + 9;
  }

  end(height: number, title: string): string {
    const mm = (points: number): string => `${round(points / POINTS_PER_MM)}mm`;
    const box = `0 0 ${round(this.width)} ${round(height)}`;
    const size = `width="${mm(this.width)}" height="${mm(height)}" viewBox="${box}"`;
    return `<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" ${size} role="img" font-family="${SANS}">
<title>${xml(title)}</title>
<rect width="100%" height="100%" fill="#ffffff"/>
${this.#parts.join("\n")}
</svg>
`;
  }
}

const LONGEST = 400;

/**
 * The parts of a caption in lines of at most `room` (in units of the text size). Lines break between parts if possible,
 * else between words.
 */
function wrapped(parts: string[], room: number): string[][] {
  const lines: string[][] = [];
  for (const part of parts.flatMap((text) => words(cut(text, LONGEST), room))) {
    const last = lines.at(-1);
    if (last && widthOf([...last, part].join(" · ")) <= room) last.push(part);
    else lines.push([part]);
  }
  return lines;
}

function words(part: string, room: number): string[] {
  if (widthOf(part) <= room) return [part];
  const lines = [""];
  for (const word of part.split(" ").map((text) => cut(text, Math.floor(room / 0.66)))) {
    const longer = `${lines.at(-1) ?? ""} ${word}`.trim();
    if (widthOf(longer) <= room) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines.filter(Boolean);
}
