// A kernel over true numbers, dumped to a JSON file beside the harness (never committed).

import { halves } from "../src/wire/half";
import type { Target } from "../src/wire/protocol.gen";
import { columnsOf } from "./component-table";
import type { Kernel } from "./fake-model";
import { neuronsReply } from "./made-up-neurons";

export interface Fixture {
  tokens: string[][];
  ids: [number, number][];
  answers: [string, string][];
  measured: number[];
  acclabels: string[];
  top: [string, number, number][][];
  [tensor: string]: unknown;
}

export function fixtureTarget(f: Fixture): Target {
  return {
    contrasts: f.ids.map(([a, d], i) => ({
      answer: [{ id: a, text: f.answers[i]?.[0] ?? "" }],
      distractor: [{ id: d, text: f.answers[i]?.[1] ?? "" }],
    })),
    direction: null,
  };
}

export function fixtureKernel(f: Fixture, layers: number, heads: number): Kernel {
  const prompts = f.tokens.length;
  const positions = f.tokens[0]?.length ?? 0;
  const raw = (name: string): ArrayBuffer => Uint8Array.from(atob(String(f[name])), (c) => c.charCodeAt(0)).buffer;
  const tensors = new Map(
    ["acc", "accr", "heads", "attn", "mlp", "emb", "br"].map((n) => [n, new Float32Array(raw(n))]),
  );
  const patterns = new Uint16Array(raw("pats"));
  const cells = positions * positions;
  /** A row of [prompt, …], or the mean over prompts. */
  const row = (name: string, prompt: number | null): number[] => {
    const all = tensors.get(name) ?? new Float32Array(0);
    const width = all.length / prompts;
    return Array.from({ length: width }, (_, i) => {
      if (prompt !== null) return all[prompt * width + i] ?? 0;
      let total = 0;
      for (let b = 0; b < prompts; b += 1) total += all[b * width + i] ?? 0;
      return total / prompts;
    });
  };
  const floats = (values: number[]): ArrayBuffer => new Float32Array(values).buffer as ArrayBuffer;
  return (ask): ReturnType<Kernel> => {
    const prompt = ("prompt" in ask ? ask.prompt : null) ?? null;
    if (ask.kind === "describe")
      return {
        reply: {
          kind: "describe",
          name: "cache",
          model: "SmolLM2-135M",
          layers,
          heads,
          prompts,
          positions,
          dtype: "float32",
          device: "cpu",
          bytes: 41_300_000,
          missing: [],
          last: f.tokens.map(() => positions - 1),
          has_tokens: true,
        },
      };
    if (ask.kind === "tokens")
      return {
        reply: {
          kind: "tokens",
          tokens: Array.from({ length: positions }, (_, i) => {
            const here =
              prompt === null ? [...new Set(f.tokens.map((t) => t[i] ?? ""))] : [f.tokens[prompt]?.[i] ?? ""];
            return here.length > 1 ? { text: "", varies: here } : { text: here[0] ?? "", varies: [] };
          }),
        },
      };
    if (ask.kind === "suggest")
      return {
        reply: {
          kind: "suggest",
          predictions: (f.top[prompt ?? 0] ?? []).map(([text, id, probability]) => ({
            token: { id, text },
            probability,
          })),
        },
      };
    if (ask.kind === "check")
      return {
        reply: {
          kind: "check",
          text: ask.text,
          tokens: [...ask.text].map((text, id) => ({ id, text })),
          single: false,
          message: `“${ask.text}” is ${ask.text.length} tokens.`,
          suggestions: [],
        },
      };
    if (ask.kind === "attribute") {
      const [h, attn, mlp, emb] = ["heads", "attn", "mlp", "emb"].map((n) => row(n, prompt)) as [
        number[],
        number[],
        number[],
        number[],
      ];
      const labels: string[] = [];
      const rows: number[] = [];
      const push = (label: string, v: number | undefined): void => void (labels.push(label), rows.push(v ?? 0));
      if (ask.by === "head") {
        h.forEach((v, i) => push(`L${Math.floor(i / heads)}H${i % heads}`, v));
        mlp.forEach((v, l) => push(`${l}_mlp_out`, v));
        push("embed", emb[0]);
      } else if (ask.by === "layer") {
        push("embed", emb[0]);
        attn.forEach((v, l) => (push(`${l}_attn_out`, v), push(`${l}_mlp_out`, mlp[l])));
      } else row(ask.norm === "recomputed" ? "accr" : "acc", prompt).forEach((v, i) => push(f.acclabels[i] ?? "", v));
      const measured = prompt === null ? f.measured.reduce((a, b) => a + b, 0) / prompts : (f.measured[prompt] ?? 0);
      return {
        reply: {
          kind: "attribute",
          by: ask.by,
          components: columnsOf(labels),
          measured,
          constant: 0,
          unexplained: 2e-6,
          worst: 1e-6,
          tolerance: 1e-3,
          measured_from: "the logits in the cache",
          own: true,
          prompts,
          notes: [],
        },
        buffers: [floats(rows)],
      };
    }
    if (ask.kind === "neurons") return neuronsReply(ask, row("mlp", prompt), 0); // the fixture holds no neurons
    if (ask.kind !== "attention") return { failure: { code: "protocol", message: "The fixture does not hold that." } };
    const at = ask.layer * heads + ask.head;
    const from = prompt ?? 0;
    const start = (from * layers * heads + at) * cells;
    return {
      reply: {
        kind: "attention",
        layer: ask.layer,
        head: ask.head,
        positions,
        parts: [{ what: "pattern" }, { what: "reads" }, { what: "brings" }],
        notes: [],
      },
      buffers: [
        patterns.slice(start, start + cells).buffer as ArrayBuffer,
        floats([...halves(patterns.slice(start + cells - positions, start + cells))]),
        floats(row("br", prompt).slice(at * positions, (at + 1) * positions)),
      ],
    };
  };
}
