// Tables as CSV text (RFC 4180): comma, CRLF, a header line, quotes where needed. A number is written as the shortest
// decimal that reads back as the same float32; NaN is an empty field. A text that a spreadsheet might run as a formula
// (=, +, - or @ after optional white space) gets an apostrophe in front. If apostrophes already stand before such a
// formula, one more is added. In both cases, removing one apostrophe gives the text back.

export type Field = string | number;
export interface Table {
  columns: string[];
  /** Generated while they are written, because an attention map may have a million rows. */
  rows: Iterable<Field[]>;
}

const FORMULA = /^'*\s*[=+\-@＝＋－＠]/;
const LINES = 10_000;

export function shortest(value: number): string {
  if (Number.isNaN(value)) return "";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (Math.fround(value) !== value) return String(value); // not a float32
  // Subnormal numbers have fewer digits.
  for (let digits = Math.abs(value) < 1.2e-38 ? 1 : 6; digits < 9; digits += 1) {
    const decimal = Number(value.toPrecision(digits));
    if (Math.fround(decimal) === value) return String(decimal);
  }
  return String(Number(value.toPrecision(9)));
}

function written(field: Field): string {
  if (typeof field === "number") return shortest(field);
  const text = FORMULA.test(field) ? `'${field}` : field;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The text in parts of some thousand lines, so that no string gets too long. */
export function csv({ columns, rows }: Table): string[] {
  const parts: string[] = [];
  let lines = [columns.map(written).join(",")];
  for (const row of rows) {
    lines.push(row.map(written).join(","));
    if (lines.length < LINES) continue;
    parts.push(`${lines.join("\r\n")}\r\n`);
    lines = [];
  }
  if (lines.length > 0) parts.push(`${lines.join("\r\n")}\r\n`);
  return parts;
}
