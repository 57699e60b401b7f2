// The actions of the export menu, and the message after each.

import { feeding } from "../state/questions";
import type { Selected } from "../state/selectable";
import { shownOf } from "../state/selection";
import type { Store } from "../state/store";
import type { Client } from "../wire/client";
import type { Shown } from "../wire/protocol.gen";
import { csv } from "./csv";
import type { PictureName, Setting, ShownPicture } from "./pictures";
import { png } from "./png";
import { copy, download, fileName, safe } from "./save";
import { fileParts, settingOf, shownPictures } from "./shown-pictures";
import { cut } from "./svg/xml";

export type Format = "code" | "csv" | "svg" | "png";

export interface Outcome {
  message: string;
  /** Code to copy by hand, if the page is not allowed to use the clipboard. */
  byHand?: string;
}

/** Exports a picture. Elements that the browser needs for it are added to `within` for a moment. */
export async function exportPicture(
  format: Format,
  what: PictureName,
  store: Store,
  client: Client,
  within: HTMLElement,
): Promise<Outcome> {
  if (format === "code") return copyCode(what, store, client, within);
  // The caption describes the selection, so the picture must belong to the selection.
  if ([store.computing, store.computingNeurons, store.computingScores].some((count) => count.peek() > 0))
    throw new Error("The kernel is still computing the selected picture. Export it when it is drawn.");
  // The picture is read now, because it may have changed since the menu was opened.
  const picture = find(store, what);
  if (!picture) throw new Error("This picture is not drawn yet, or is no longer drawn.");
  const setting = settingOf(store);
  const name = `${fileName(...fileParts(store), what)}.${format}`;
  return saved(name, await fileOf(format, picture, setting), within);
}

async function fileOf(format: Exclude<Format, "code">, picture: ShownPicture, setting: Setting): Promise<Blob> {
  if (format === "csv") return new Blob(csv(picture.table(setting)), { type: "text/csv;charset=utf-8" });
  const svg = picture.figure(setting);
  return format === "svg" ? new Blob([svg], { type: "image/svg+xml" }) : png(svg);
}

async function saved(name: string, blob: Blob, within: HTMLElement): Promise<Outcome> {
  const done = await download(name, blob, within);
  // The page cannot find out whether the file was saved: browsers and VS Code may ask for a place, and the user may
  // cancel.
  const receiver = document.body.dataset["vscodeThemeKind"] === undefined ? "the browser" : "VS Code";
  return {
    message:
      done === "offered" ? `${name} given to ${receiver} to save` : done ? `${name} saved` : `${name} was not saved`,
  };
}

function find(store: Store, what: PictureName): ShownPicture | undefined {
  return shownPictures(store).find(({ picture }) => picture.picture === what);
}

/** The target that a picture shows. A head map that is coloured by what feeds a head has its own target. */
function fedTarget(picture: PictureName, shown: Selected): Pick<Shown, "target" | "feeds" | "against"> {
  const { feeds, target, against } = shown;
  if (picture !== "heads" || !feeds) return { target, feeds: null, against };
  return { target: feeding(shown, feeds).target, feeds: null, against: null }; // one run
}

/** The effect and the run that the pictures show. A score, or a second run, is shown in place of a chosen effect. */
function effectIn(store: Store, run: Selected["run"]): Pick<Shown, "effect" | "run"> {
  const effect = store.effectShown.peek();
  return { effect, run: effect === "direct" ? run : "first" };
}

async function copyCode(picture: PictureName, store: Store, client: Client, within: HTMLElement): Promise<Outcome> {
  const whole = shownOf(store);
  // The heads in the picture may differ from the pinned heads: a preview, the top heads, the head in focus.
  const heads = find(store, picture)?.heads ?? whole.heads;
  const shown = { ...whole, ...fedTarget(picture, whole), ...effectIn(store, whole.run), heads };
  const code = client.ask({ kind: "code", picture, shown }).then(({ reply }) => reply.code);
  const copied = await copy(code, within);
  const words = await code;
  if (!copied)
    return { message: "The browser does not let this page use the clipboard. Copy the code by hand:", byHand: words };
  const lines = words.trim().split("\n");
  const first = lines.find((line) => /^(?!import|#)\S/.test(line)) ?? lines[0] ?? "";
  return { message: `Code copied: ${cut(first, 60)}${lines.length > 1 ? " …" : ""}` };
}

const PAGE = "page";
const STOPPED = "Stopped: no page was made.";

/** Cancels the page that is being made. */
export const stopPage = (client: Client): void => client.leave(PAGE);

export async function exportPage(store: Store, client: Client, within: HTMLElement): Promise<Outcome> {
  const result = await client.latest(PAGE, { kind: "page", shown: shownOf(store) });
  if (!result) return { message: STOPPED };
  const { reply, buffers } = result;
  const [page] = buffers;
  if (!page) throw new Error("The kernel sent no page.");
  const name = `${safe(reply.name.replace(/\.html?$/i, ""), 200) || "residscope"}.html`;
  return saved(
    name,
    new Blob([new Uint8Array(page.buffer as ArrayBuffer, page.byteOffset, page.byteLength)], { type: "text/html" }),
    within,
  );
}
