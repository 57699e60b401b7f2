// Draws the documentation's Markdown: headings, paragraphs, lists, quotes, tables, code and links. Text becomes text
// nodes, never HTML. Only what py_backend/docs uses is known; anything else is shown as it is written.
import { element } from "../base/lifetime";

/** The element for a link to an address; null if the link leads nowhere, and is shown as plain text. */
export type LinkTo = (address: string) => HTMLElement | null;

const MARK = /`+|\*\*|\*|\[|<kbd>/;

export function markdown(source: string, linkTo: LinkTo): HTMLElement[] {
  const lines = source.split("\n");
  const made: HTMLElement[] = [];
  let at = 0;
  /** The lines from here on, while `goesOn` says that they belong to the same block. */
  const take = (goesOn: (line: string) => boolean): string[] => {
    const first = at++;
    while (at < lines.length && goesOn(lines[at] ?? "")) at++;
    return lines.slice(first, at);
  };
  while (at < lines.length) {
    const line = lines[at] ?? "";
    const heading = /^(#{1,4}) (.*)$/.exec(line);
    if (line.trim() === "") at++;
    else if (heading) {
      const [, marks = "", words = ""] = heading;
      const node = element(`h${marks.length}` as "h1", "", { "data-anchor": anchorOf(words) });
      node.append(...inline(words, linkTo));
      made.push(node);
      at++;
    } else if (line.startsWith("```")) {
      const body = take((next) => !next.startsWith("```")).slice(1);
      at++;
      made.push(element("pre", "", { tabindex: "0" }, element("code", "", {}, body.join("\n"))));
    } else if (line.startsWith("|"))
      made.push(
        table(
          take((next) => next.startsWith("|")),
          linkTo,
        ),
      );
    else if (/^(-|\d+\.) /.test(line))
      made.push(
        list(
          take((next) => /^(-|\d+\.) |^ +\S/.test(next)),
          linkTo,
        ),
      );
    else if (line.startsWith("> ")) {
      const words = joined(
        take((next) => next.startsWith(">")),
        /^> ?/,
      );
      made.push(element("blockquote", "", {}, element("p", "", {}, ...inline(words, linkTo))));
    } else {
      const words = joined(take((next) => next.trim() !== "" && !/^(```|\||#+ |> )/.test(next)));
      made.push(element("p", "", {}, ...inline(words, linkTo)));
    }
  }
  return made;
}

/** A heading's name in links, as the documentation site makes it. */
export function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s-]/gu, "")
    .trim()
    .replace(/\s+/g, "-");
}

const joined = (lines: string[], prefix = /^ +/): string => lines.map((line) => line.replace(prefix, "")).join(" ");

function list(lines: string[], linkTo: LinkTo): HTMLElement {
  const isNumbered = /^\d/.test(lines[0] ?? "");
  const items: string[][] = [];
  for (const line of lines) {
    const words = /^(?:-|\d+\.) (.*)$/.exec(line)?.[1];
    if (words === undefined) items.at(-1)?.push(line);
    else items.push([words]);
  }
  const made = items.map((item) => element("li", "", {}, ...inline(joined(item), linkTo)));
  return element(isNumbered ? "ol" : "ul", "", {}, ...made);
}

function table(lines: string[], linkTo: LinkTo): HTMLElement {
  const [head = [], marks = [], ...rows] = lines.map(cellsOf);
  const row = (cells: string[], tag: "th" | "td"): HTMLElement =>
    element(
      "tr",
      "",
      {},
      ...cells.map((cell, column) => {
        const isNumber = (marks[column] ?? "").endsWith(":");
        return element(tag, isNumber ? "rs-number" : "", {}, ...inline(cell, linkTo));
      }),
    );
  const body = element("tbody", "", {}, ...rows.map((cells) => row(cells, "td")));
  const made = element("table", "", {}, element("thead", "", {}, row(head, "th")), body);
  return element("div", "rs-table", { tabindex: "0" }, made);
}

/** The cells of a table's line. A bar in code is written `\|`. */
function cellsOf(line: string): string[] {
  const inner = line
    .trim()
    .replace(/^\|/, "")
    .replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

/** Text with code, stress, links and keys. A mark without its other end is text. */
function inline(text: string, linkTo: LinkTo): (Node | string)[] {
  const made: (Node | string)[] = [];
  const marks = new RegExp(MARK, "g");
  let from = 0;
  for (let found = marks.exec(text); found; found = marks.exec(text)) {
    const node = nodeAt(text, found.index, found[0], linkTo);
    if (!node) continue;
    made.push(text.slice(from, found.index), node.made);
    from = marks.lastIndex = node.end;
  }
  made.push(text.slice(from));
  return made.filter((part) => part !== "");
}

function nodeAt(text: string, at: number, mark: string, linkTo: LinkTo): { made: Node | string; end: number } | null {
  const start = at + mark.length;
  if (mark === "[") {
    const link = /^\[((?:[^\][]|\[[^\]]*\])*)\]\(([^)\s]+)\)/.exec(text.slice(at));
    if (!link) return null;
    const [whole, words = "", address = ""] = link;
    const anchor = linkTo(address) ?? element("span");
    anchor.append(...inline(words, linkTo));
    return { made: anchor, end: at + whole.length };
  }
  const closing = mark === "<kbd>" ? "</kbd>" : mark;
  let end = text.indexOf(closing, start);
  if (mark === "**" && text.startsWith("***", end)) end += 1; // the first of the three asterisks ends the inner `*`
  if (end <= start) return null;
  const inner = text.slice(start, end);
  if (mark === "*" && /^\s|\s$/.test(inner)) return null; // a product, not stress
  if (mark.startsWith("`")) return { made: element("code", "", {}, inner), end: end + closing.length };
  const tag = mark === "**" ? "b" : mark === "*" ? "em" : "kbd";
  return { made: element(tag, "", {}, ...inline(inner, linkTo)), end: end + closing.length };
}
