// Makes text from outside (names, tokens, the kernel's sentences) safe to show: it cannot hide or cover other text, or
// reverse the direction of other text. `base/legible.py` does the same in Python; tests/texts/shown.json tests both.
import { MARKS } from "./look.gen";

/** Characters that draw nothing, or change the direction of others. `isNeeded` and `legible` have exceptions. */
const INVISIBLE =
  /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}\u2800\ufff9-\ufffb]/u;
/** Marks that are drawn over or under the character before them. */
const STACKED = /[\p{Mn}\p{Me}]/u;
/** An invisible or a stacked character. Most texts have none of them and stay unchanged. */
const INVISIBLE_OR_STACKED =
  /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Mn}\p{Me}\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}\u2800\ufff9-\ufffb]/u;
const WHITE = /[\s\u2028\u2029]/u;

/** Letters of scripts in which an invisible character decides whether two letters are joined. */
const JOINED_LETTER = /[\u0620-\u08ff\u0900-\u109f\u1780-\u17b3\u17b6-\u180a\u1810-\u18af\ufb50-\ufdff\ufe70-\ufefc]/u;
const EMOJI = /\p{Extended_Pictographic}/u;
/** A variation selector or a skin tone, which can come between an emoji and its joiner. */
const EMOJI_MODIFIER = /[\ufe0f\u{1f3fb}-\u{1f3ff}]/u;
const TAG = /[\u{e0030}-\u{e0039}\u{e0061}-\u{e007a}\u{e007f}]/u;
const BLACK_FLAG = "\u{1f3f4}";

const MAX_MARKS = 4;
/** A longer sequence of code units does not count as one character. Emoji families have about ten units. */
const MAX_CHARACTER_LENGTH = 16;
/** For each character that is shown, at most this many code units of the text are read. */
const READ_PER_CHARACTER = 32;

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]|[\ud802\ud803\ud83a\ud83b]/;
const [ISOLATE, END] = ["\u2068", "\u2069"];

/**
 * The text with invisible characters written as their codes, "‹U+202E›". Spaces, tabs and ends of lines stay, and so do
 * invisible characters that emoji or joined letters need. Of many stacked marks, the first few stay and the others are
 * counted, "‹+12›".
 */
export function legible(text: string): string {
  if (!INVISIBLE_OR_STACKED.test(text)) return text;
  const points = [...text];
  let [written, marks, hasBase] = ["", 0, false];
  const endMarks = (): void => {
    if (marks > MAX_MARKS) written += `‹+${marks - MAX_MARKS}›`;
    marks = 0;
  };
  points.forEach((point, i) => {
    const isInvisible = INVISIBLE.test(point) && !/[\n\r\t]/.test(point);
    if (!isInvisible && STACKED.test(point)) {
      if (!hasBase) written += "◌";
      hasBase = true;
      marks += 1;
      if (marks <= MAX_MARKS) written += point;
      return;
    }
    if (isInvisible && isNeeded(points, i)) return void (marks <= MAX_MARKS && (written += point));
    endMarks();
    hasBase = !isInvisible && !WHITE.test(point);
    written += isInvisible ? codeOf(point) : point;
  });
  endMarks();
  return written;
}

/**
 * Whether an invisible character is needed to write the characters around it: an emoji of several characters, joined
 * letters, a variant, a flag.
 */
function isNeeded(points: string[], index: number): boolean {
  const [point = "", before = "", after = ""] = [points[index], points[index - 1], points[index + 1]];
  if (point === "\u200d" && (EMOJI.test(before) || EMOJI_MODIFIER.test(before)) && EMOJI.test(after)) return true;
  if (point === "\u200d" || point === "\u200c" || /[\u180b-\u180d\u180f]/u.test(point))
    return JOINED_LETTER.test(before);
  if (point === "\ufe0e" || point === "\ufe0f")
    return EMOJI.test(before) || (/[0-9#*]/.test(before) && after === "\u20e3");
  if (/[\u{e0100}-\u{e01ef}]/u.test(point)) return /\p{Script=Han}/u.test(before);
  if (!TAG.test(point)) return false;
  let flag = index - 1;
  while (index - flag < 8 && TAG.test(points[flag] ?? "")) flag -= 1;
  return points[flag] === BLACK_FLAG;
}

/** The code that is shown for an invisible character. */
export function codeOf(point: string): string {
  return `‹U+${(point.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}›`;
}

/** The text, cut to at most `most` characters as a reader counts them. It ends with "…" if it was cut. */
export function cut(text: string, most = 60): string {
  const beginning = text.slice(0, READ_PER_CHARACTER * most).replace(/[\ud800-\udbff]$/, "");
  const start = beginning.length < text.length ? beginning : text;
  const written = legible(start);
  if (start === text && written.length <= most) return written;
  const shownCharacters: string[] = [];
  for (const character of charactersOf(written)) if (shownCharacters.push(character) > most) break;
  return shownCharacters.length <= most && start === text ? written : `${shownCharacters.slice(0, most - 1).join("")}…`;
}

function* charactersOf(text: string): Generator<string> {
  if (typeof Intl.Segmenter !== "function") return yield* text;
  for (const { segment } of new Intl.Segmenter(undefined, { granularity: "grapheme" }).segment(text)) {
    if (segment.length <= MAX_CHARACTER_LENGTH) yield segment;
    else yield* segment;
  }
}

/** Isolates right-to-left text, so that it does not change the direction of the text around it. */
export function isolated(text: string): string {
  return RIGHT_TO_LEFT.test(text) && !(text.startsWith(ISOLATE) && text.endsWith(END)) ? ISOLATE + text + END : text;
}

/** Does the same as `legible` for a whole sentence. Parts that are already isolated stay isolated. */
export function legibleSentence(sentence: string): string {
  return sentence
    .split(/(\u2068[^\u2066-\u2069]*\u2069)/)
    .map((part, i) => (i % 2 === 1 ? ISOLATE + legible(part.slice(1, -1)) + END : legible(part)))
    .join("");
}

/** A name for the screen: on one line, cut to a readable length, and safe next to other text. */
export function shown(text: string, most = 60): string {
  return isolated(cut(text, most).replace(/[\n\r\t]/g, (c) => MARKS[c] ?? c));
}

/** A name as part of a sentence, in backquotes. `ui/prose.ts` shows it as code. */
export function coded(name: string): string {
  return `\`${shown(name).replaceAll("`", "ˋ")}\``;
}
