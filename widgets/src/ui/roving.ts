// Keyboard focus in rows and grids of elements: the Tab key stops at one element only, and other keys move from there.

/** Keeps one of many elements as the only one at which the Tab key stops. */
export class TabStop {
  #current: Element | null = null;

  move(to: Element | null): void {
    this.#current?.setAttribute("tabindex", "-1");
    to?.setAttribute("tabindex", "0");
    this.#current = to;
  }
}

const clamp = (value: number, last: number): number => Math.max(0, Math.min(last, value));

/** The index that an arrow key, Home or End moves to, in a row of `count` elements. Undefined for any other key. */
export function stepAlong(key: string, index: number, count: number): number | undefined {
  const last = count - 1;
  const to = {
    ArrowLeft: index - 1,
    ArrowUp: index - 1,
    ArrowRight: index + 1,
    ArrowDown: index + 1,
    Home: 0,
    End: last,
  }[key];
  return to === undefined ? undefined : clamp(to, last);
}

export interface Cell {
  row: number;
  column: number;
}

/**
 * The cell of a grid that a key moves to; undefined if the key moves nowhere. Home and End move to the ends of the row,
 * and with Ctrl to the first and last cell. PageUp and PageDown move by `page` rows; by default, by all rows.
 */
export function stepAcross(
  { key, ctrlKey }: KeyboardEvent,
  { row, column }: Cell,
  rows: number,
  columns: number,
  page = rows,
): Cell | undefined {
  const to: Partial<Record<string, Cell>> = {
    ArrowUp: { row: row - 1, column },
    ArrowDown: { row: row + 1, column },
    ArrowLeft: { row, column: column - 1 },
    ArrowRight: { row, column: column + 1 },
    Home: { row: ctrlKey ? 0 : row, column: 0 },
    End: { row: ctrlKey ? rows - 1 : row, column: columns - 1 },
    PageUp: { row: row - page, column },
    PageDown: { row: row + page, column },
  };
  const next = to[key];
  return next && { row: clamp(next.row, rows - 1), column: clamp(next.column, columns - 1) };
}
