// Escapes any text for XML: characters that XML forbids, or that a reader would not see, are written as their code.
// Long texts are cut.
import { codeOf, legible } from "../../base/legible";

/** Removes isolating characters, because each text is isolated by its own element. */
function legibleIn(text: string): string {
  return legible(text.replace(/[\u2066-\u2069]/g, ""));
}

const ENTITIES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

export function xml(text: string): string {
  return legibleIn(text)
    .replace(/[\n\r\t]/g, codeOf)
    .replace(/[&<>"']/g, (c) => ENTITIES[c] ?? c);
}

/** The text, cut to a width of at most `most` characters. An East Asian character or an emoji counts as two. */
export function cut(text: string, most: number): string {
  let width = 0;
  let kept = "";
  const looked = text.slice(0, 8 * most + 16).replace(/[\ud800-\udbff]$/, "");
  const whole = looked.length < text.length ? null : legibleIn(looked);
  for (const c of whole ?? legibleIn(looked)) {
    width += /\p{M}/u.test(c) ? 0 : wide(c) ? 2 : 1;
    if (width > most) return `${kept.trimEnd()}…`;
    kept += c;
  }
  return whole ?? `${kept}…`;
}

function wide(c: string): boolean {
  return /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u.test(
    c,
  );
}

/** The estimated width of a text, in units of its size; without a browser it cannot be measured. */
export function widthOf(text: string, mono = false): number {
  let width = 0;
  for (const c of text)
    width += /\p{M}/u.test(c)
      ? 0
      : wide(c)
        ? 1.1
        : mono
          ? 0.602
          : /[iljtfr .,:;·|()[\]]/.test(c)
            ? 0.34
            : /[A-Zmw0-9%+−×∗]/.test(c)
              ? 0.64
              : 0.56;
  return width;
}
