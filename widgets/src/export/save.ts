// Gets data out of the page: a file to download, a text for the clipboard.

/** The maximum length of one part of a name, in bytes. With at most three long parts, a name fits into 255 bytes. */
const MOST = 60;

/** A name that every file system accepts: the letters, digits, - and _ of each part, cut to MOST bytes. */
export function fileName(...parts: string[]): string {
  return (
    parts
      .map((part) => safe(part))
      .filter(Boolean)
      .join("-") || "residscope"
  );
}

export function safe(part: string, most = MOST): string {
  const bytes = new TextEncoder().encode(
    part
      .slice(0, 4 * most)
      .normalize("NFC")
      .replace(/[^\p{L}\p{N}_-]+/gu, "-")
      .replace(/^-+/, ""),
  );
  // The cut may leave half a character, or a hyphen at the end.
  return new TextDecoder()
    .decode(bytes.subarray(0, most))
    .replace(/\ufffd+$/, "")
    .replace(/-+$/, "");
}

const KEEP_MS = 60_000;

type Saver = (name: string, blob: Blob) => Promise<boolean>;
let saver: Saver | null = null;

/**
 * Replaces the browser's download, for hosts whose pages cannot download. `own` saves a file, and returns whether it
 * was saved. Null restores the browser's download.
 */
export function saveWith(own: Saver | null): void {
  saver = own;
}

/**
 * Whether the file was saved; "offered" means that the browser, or the host around this page, has the file and may ask
 * where to save it.
 */
export async function download(name: string, blob: Blob, within: HTMLElement): Promise<boolean | "offered"> {
  if (saver) return saver(name, blob);
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.hidden = true;
  within.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), KEEP_MS); // a browser that asks where to save the file reads it later
  return "offered";
}

/**
 * Copies a text, and returns whether it is in the clipboard. Some browsers allow this only right after a click. The
 * text is a promise, so that copying can start at the click, before the text is ready.
 */
export async function copy(text: Promise<string>, within: HTMLElement): Promise<boolean> {
  try {
    const blob = text.then((words) => new Blob([words], { type: "text/plain" }));
    blob.catch(() => undefined); // `await text` below throws the same error
    await navigator.clipboard.write([new ClipboardItem({ "text/plain": blob })]);
    return true;
  } catch {
    const words = await text;
    return (await written(words)) || copiedFromField(words, within);
  }
}

async function written(words: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    return false;
  }
}

/** Copies with the old API, for pages that cannot use the clipboard API (no https, or a frame without permission). */
function copiedFromField(words: string, within: HTMLElement): boolean {
  const area = document.createElement("textarea");
  area.value = words;
  area.className = "rs-off-screen";
  const before = document.activeElement;
  within.append(area);
  area.select();
  try {
    return document.execCommand("copy");
  } catch {
    return false;
  } finally {
    area.remove();
    if (before instanceof HTMLElement) before.focus();
  }
}
