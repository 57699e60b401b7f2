// Text into XML, whatever it holds: what XML forbids becomes a visible sign, long texts are cut.

/**
 * Without what must not stand in XML 1.0, or says nothing on paper: control characters get their picture (␀), and marks of
 * direction, which would turn what stands beside them, go.
 */
function permitted(text: string): string {
  return text
    .replace(/[\u202a-\u202e\u2066-\u2069]/g, "")
    .replace(/[\u0000-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/\u007f/g, "␡")
    .replace(/[\u0080-\u009f\ufffe\uffff]/g, "\ufffd")
    .replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");
}

const ENTITIES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

export function xml(text: string): string {
  return permitted(text).replace(/[&<>"']/g, (c) => ENTITIES[c] ?? c);
}

/** At most `most` characters wide; East Asian ones and emoji count as two. */
export function cut(text: string, most: number): string {
  let width = 0;
  let kept = "";
  let marks = 0;
  for (const c of text.slice(0, 8 * most + 16)) {
    marks = /\p{M}/u.test(c) ? marks + 1 : 0;
    if (marks > 4) continue; // a tower of accents
    width += marks > 0 ? 0 : wide(c) ? 2 : 1;
    if (width > most) return `${kept.trimEnd()}…`;
    kept += c;
  }
  return kept.length < text.length ? `${kept}…` : kept;
}

function wide(c: string): boolean {
  return /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u.test(c);
}

/** How wide a text is about, in units of its size: a page without a browser cannot measure. */
export function widthOf(text: string, mono = false): number {
  let width = 0;
  for (const c of text) width += /\p{M}/u.test(c) ? 0 : wide(c) ? 1.1 : mono ? 0.602 : /[iljtfr .,:;·|()[\]]/.test(c) ? 0.34 : /[A-Zmw0-9%+−×∗]/.test(c) ? 0.64 : 0.56;
  return width;
}
