// A snapshot as a few lines of HTML, for viewers that do not run JavaScript: GitHub, nbviewer, e-mail.

import { signed } from "../base/format";
import { shown } from "../base/legible";
import { inView, isNext, label, nextWords, quantity } from "../state/target";
import { float32 } from "../wire/client";
import { componentsOf } from "../wire/components";
import type { AttributionReply, CacheFacts } from "../wire/protocol.gen";
import { type Snapshot, unpacked } from "./snapshot";

/** At most this many heads are named. */
const MAX_HEADS = 5;
/** The tokens of a target are listed if at most this many different contrasts are in view. */
const MAX_CONTRASTS = 4;

export function summaryOf({ name, selection, entries }: Snapshot): string {
  const facts = entries.find(({ ask }) => ask.kind === "describe")?.reply as CacheFacts | undefined;
  const heads = entries.find(({ ask }) => ask.kind === "attribute" && "by" in ask && ask.by === "head");
  const { measured, components } = (heads?.reply ?? {}) as Partial<AttributionReply>;
  const rows = heads?.buffers?.[0] ? float32(unpacked(heads.buffers[0])) : new Float32Array(0);
  const prompt = selection.prompt ?? null;
  const words = [
    ...new Set(
      inView(selection.target, prompt).map(
        ({ answer, distractor }) => label(answer) + (distractor.length > 0 ? ` minus ${label(distractor)}` : ""),
      ),
    ),
  ];
  const tokens = words.length > 0 && words.length <= MAX_CONTRASTS ? ` (${words.join("; ")})` : "";
  const next = isNext(selection.target) ? ` (${nextWords(selection.target)})` : "";
  const target = quantity(selection.target, prompt) + tokens + next;
  const promptWords =
    prompt === null
      ? (facts?.prompts ?? 1) > 1
        ? `the mean of ${facts?.prompts} prompts`
        : "the prompt"
      : `prompt ${prompt}`;
  const strongest = componentsOf(components)
    .map(({ kind, label }, i) => ({ kind, head: label, value: rows[i] ?? NaN }))
    .filter(({ kind, value }) => kind === "head" && !Number.isNaN(value))
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
    .slice(0, MAX_HEADS);
  const contribution = ({ head, value }: { head: string; value: number }): string =>
    `<b>${escaped(head)}</b> ${escaped(signed(value, strongest[0]?.value ?? 0))}`;
  const result = typeof measured === "number" ? `: <b>${escaped(signed(measured, measured, 1))}</b>` : "";
  return [
    `<p><b>Residscope</b> · ${escaped(shown(name))}${facts?.model ? ` · ${escaped(shown(facts.model))}` : ""}</p>`,
    `<p>${escaped(target)} of ${escaped(promptWords)}${result}</p>`,
    strongest.length > 0 ? `<p>Strongest heads: ${strongest.map(contribution).join(", ")}</p>` : "",
  ].join("\n");
}

/** The text with HTML's special characters escaped. */
function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}
