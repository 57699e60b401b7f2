// Makes text from outside (names, tokens, the kernel's sentences) safe to show: it cannot hide text, cover its
// neighbours or reverse their direction. `base/legible.py` does the same in Python; tests/texts/shown.json tests both.
import { MARKS } from "./look.gen";

/** Characters that draw nothing, or change the direction of their neighbours. Some are needed: see `isNeeded`. */
const UNSEEN =
  /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}\u2800\ufff9-\ufffb]/u;
/** Marks that are drawn over or under the character before them. */
const STACKED = /[\p{Mn}\p{Me}]/u;
/** Most texts contain neither and stay unchanged. */
const DOUBTFUL =
  /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Mn}\p{Me}\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}\u2800\ufff9-\ufffb]/u;
const WHITE = /[\s\u2028\u2029]/u;

/** Scripts whose letters join, or are kept from joining, by an invisible character. */
const JOINING = /[\u0620-\u08ff\u0900-\u109f\u1780-\u17b3\u17b6-\u180a\u1810-\u18af\ufb50-\ufdff\ufe70-\ufefc]/u;
const EMOJI = /\p{Extended_Pictographic}/u;
/** A variation selector or a skin tone, between an emoji and its joiner. */
const OF_EMOJI = /[\ufe0f\u{1f3fb}-\u{1f3ff}]/u;
const TAG = /[\u{e0030}-\u{e0039}\u{e0061}-\u{e007a}\u{e007f}]/u;
const BLACK_FLAG = "\u{1f3f4}";

const MOST_MARKS = 4;
/** The most code points that count as one character; emoji families have up to ten. */
const LONGEST_CHARACTER = 16;
/** At most this many code units of a text are read for each character that is shown. */
const LOOKED_AT = 32;

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]|[\ud802\ud803\ud83a\ud83b]/;
const [ISOLATE, END] = ["\u2068", "\u2069"];

/**
 * Invisible characters are written as their code, "‹U+202E›"; of many stacked marks the first few are kept, then a
 * count of the others. White space stays.
 */
export function legible(text: string): string {
  if (!DOUBTFUL.test(text)) return text;
  const points = [...text];
  let [written, marks, based] = ["", 0, false];
  const endTower = (): void => {
    if (marks > MOST_MARKS) written += `‹+${marks - MOST_MARKS}›`;
    marks = 0;
  };
  points.forEach((point, i) => {
    const isUnseen = UNSEEN.test(point) && !/[\n\r\t]/.test(point);
    if (!isUnseen && STACKED.test(point)) {
      if (!based) written += "◌";
      based = true;
      marks += 1;
      if (marks <= MOST_MARKS) written += point;
      return;
    }
    if (isUnseen && isNeeded(points, i)) return void (marks <= MOST_MARKS && (written += point));
    endTower();
    based = !isUnseen && !WHITE.test(point);
    written += isUnseen ? sign(point) : point;
  });
  endTower();
  return written;
}

/**
 * Whether an invisible character is needed to write its neighbours: emoji of several characters, joined letters,
 * variants, flags.
 */
function isNeeded(points: string[], at: number): boolean {
  const [point = "", before = "", after = ""] = [points[at], points[at - 1], points[at + 1]];
  if (point === "\u200d" && (EMOJI.test(before) || OF_EMOJI.test(before)) && EMOJI.test(after)) return true;
  if (point === "\u200d" || point === "\u200c" || /[\u180b-\u180d\u180f]/u.test(point)) return JOINING.test(before);
  if (point === "\ufe0e" || point === "\ufe0f")
    return EMOJI.test(before) || (/[0-9#*]/.test(before) && after === "\u20e3");
  if (/[\u{e0100}-\u{e01ef}]/u.test(point)) return /\p{Script=Han}/u.test(before);
  if (!TAG.test(point)) return false;
  let flag = at - 1;
  while (at - flag < 8 && TAG.test(points[flag] ?? "")) flag -= 1;
  return points[flag] === BLACK_FLAG;
}

/** The code that is shown for an invisible character. */
export function sign(point: string): string {
  return `‹U+${(point.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}›`;
}

/** The text, cut to at most `most` characters as a reader counts them; an ellipsis marks a cut. */
export function cut(text: string, most = 60): string {
  const looked = text.slice(0, LOOKED_AT * most).replace(/[\ud800-\udbff]$/, "");
  const start = looked.length < text.length ? looked : text;
  const written = legible(start);
  if (start === text && written.length <= most) return written;
  const kept: string[] = [];
  for (const character of characters(written)) if (kept.push(character) > most) break;
  return kept.length <= most && start === text ? written : `${kept.slice(0, most - 1).join("")}…`;
}

function* characters(text: string): Generator<string> {
  if (typeof Intl.Segmenter !== "function") return yield* text;
  for (const { segment } of new Intl.Segmenter(undefined, { granularity: "grapheme" }).segment(text)) {
    if (segment.length <= LONGEST_CHARACTER) yield segment;
    else yield* segment;
  }
}

/** Right-to-left text is isolated, so that it does not change the direction of its neighbours. */
export function isolated(text: string): string {
  return RIGHT_TO_LEFT.test(text) && !(text.startsWith(ISOLATE) && text.endsWith(END)) ? ISOLATE + text + END : text;
}

/** A composed sentence made legible; its isolated parts stay isolated. */
export function fitted(sentence: string): string {
  return sentence
    .split(/(\u2068[^\u2066-\u2069]*\u2069)/)
    .map((part, i) => (i % 2 === 1 ? ISOLATE + legible(part.slice(1, -1)) + END : legible(part)))
    .join("");
}

/** A name for the screen: on one line, cut to a readable length, and safe next to other text. */
export function shown(text: string, most = 60): string {
  return isolated(cut(text, most).replace(/[\n\r\t]/g, (c) => MARKS[c] ?? c));
}

/** A name for a sentence, in backquotes: `ui/prose.ts` shows it as code. */
export function coded(name: string): string {
  return `\`${shown(name).replaceAll("`", "ˋ")}\``;
}
