// Moves the focus in rows and grids with keys, and keeps one element of each as the stop of the Tab key.

/** The one of many elements that the Tab key stops at. */
export class TabStop {
  #current: Element | null = null;

  move(to: Element | null): void {
    this.#current?.setAttribute("tabindex", "-1");
    to?.setAttribute("tabindex", "0");
    this.#current = to;
  }
}

const clamp = (value: number, last: number): number => Math.max(0, Math.min(last, value));

/** The index that a key moves to from `at`, in a row of `count`: arrows, Home and End. Undefined for any other key. */
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
 * The cell that a key moves to in a grid; undefined for any other key. Home and End move to the ends of the row, and
 * with Ctrl to the first and last cell. `page` is the number of rows that PageUp and PageDown move by; all by default.
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
