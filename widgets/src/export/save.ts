// Out of the page: a file to download, a text to the clipboard.

/** Bytes: of four parts and an ending a file system takes no more than 255. */
const MOST = 60;

/** A name that every file system takes: letters, digits, - and _ of each part, as many as there is room for. */
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
  return new TextDecoder()
    .decode(bytes.subarray(0, most))
    .replace(/\ufffd+$/, "")
    .replace(/-+$/, ""); // none is cut in two
}

const KEEP_MS = 60_000;

type Saver = (name: string, blob: Blob) => Promise<boolean>;
let saver: Saver | null = null;

/**
 * For a host whose pages cannot download: it saves files itself, and tells whether it did. Null: the browser does
 * again.
 */
export function saveWith(own: Saver | null): void {
  saver = own;
}

/**
 * Whether the file is where the user wants it; "offered": the browser, or the host around this page, has it, and may
 * ask where to.
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
  setTimeout(() => URL.revokeObjectURL(address), KEEP_MS); // a browser that asks where to put it reads it later
  return "offered";
}

/**
 * Whether the text is in the clipboard now. It may come later: a browser that wants a click for it counts the one
 * before.
 */
export async function copy(text: Promise<string>, within: HTMLElement): Promise<boolean> {
  try {
    const blob = text.then((words) => new Blob([words], { type: "text/plain" }));
    blob.catch(() => undefined); // said below
    await navigator.clipboard.write([new ClipboardItem({ "text/plain": blob })]);
    return true;
  } catch {
    const words = await text; // its own failure is told as such
    return (await written(words)) || copiedByHand(words, within);
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

/** The old way, where the page may not use the clipboard (no https, a frame without the right to). */
function copiedByHand(words: string, within: HTMLElement): boolean {
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
