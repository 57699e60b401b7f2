// Tables as CSV text (RFC 4180): comma, CRLF, a header line, quotes where needed.
//
// Numbers are the shortest decimals that are the same float32 again; NaN is an empty field. A text that a spreadsheet
// might run (=, +, - or @ after optional white space) is put behind an apostrophe, and so is one that begins with such
// an apostrophe already: taking one apostrophe off gives the text back.

export type Field = string | number;
export interface Table {
  columns: string[];
  /** Made as they are written: an attention map has a million. */
  rows: Iterable<Field[]>;
}

const RUNS = /^'*\s*[=+\-@＝＋－＠]/;
const LINES = 10_000;

export function shortest(value: number): string {
  if (Number.isNaN(value)) return "";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (Math.fround(value) !== value) return String(value); // not a float32: as it is
  for (let digits = Math.abs(value) < 1.2e-38 ? 1 : 6; digits < 9; digits += 1) {
    // subnormal ones have fewer digits
    const decimal = Number(value.toPrecision(digits));
    if (Math.fround(decimal) === value) return String(decimal);
  }
  return String(Number(value.toPrecision(9)));
}

function written(field: Field): string {
  if (typeof field === "number") return shortest(field);
  const text = RUNS.test(field) ? `'${field}` : field;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** In parts of some thousand lines, so that no string gets too long. */
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
