// A fake kernel that measures effects in batches, one batch per request, and makes runs without some heads. Its direct
// effects are the contributions in the wrapped kernel's reply, if it has them. All other numbers are made up.
import type { Ask } from "../src/wire/client";
import type { EffectsReply } from "../src/wire/protocol.gen";
import type { Kernel } from "./fake-model";

interface Options {
  layers: number;
  heads: number;
  positions: number;
  /** The number of values that one request measures. */
  batch?: number;
  /** How many requests measure nothing, in addition to the first one. */
  idle?: number;
  refusal?: string;
}

interface Job {
  order: number[];
  total: Float32Array;
  direct: Float32Array;
  estimate: Float32Array;
  done: number;
  asked: number;
}

/** A number between −1 and 1 that is always the same for an index. */
const noise = (index: number): number => Math.sin(index * 12.9898) * Math.cos(index * 78.233);

export function measuredKernel(kernel: Kernel, options: Options): Kernel & { runs: () => number } {
  const { batch = 2, idle = 0 } = options;
  const jobs = new Map<string, Job>();
  const made = new Set<string>();
  let runs = 0;

  const jobOf = (ask: Extract<Ask, { kind: "effects" }>): Job => {
    const count = options.layers * (ask.of === "stream" ? options.positions : options.heads);
    const { kind: _, of: __, replaced_by: ___, against: ____, measure: _____, ...about } = ask;
    const reply = kernel({ ...about, kind: "attribute", by: "head", norm: "frozen" });
    const rows = "buffers" in reply ? new Float32Array(reply.buffers?.[0] ?? new ArrayBuffer(0)) : new Float32Array(0);
    const direct = Float32Array.from({ length: count }, (_, i) => rows[i] ?? noise(i));
    const estimate = direct.map((value, i) => value + 0.4 * noise(i + 7));
    const order = [...estimate.keys()].sort((a, b) => Math.abs(estimate[b] ?? 0) - Math.abs(estimate[a] ?? 0));
    return { order, total: new Float32Array(count).fill(NaN), direct, estimate, done: 0, asked: 0 };
  };

  const answer: Kernel = (ask) => {
    if (ask.kind === "without") {
      const key = JSON.stringify(ask.against);
      if (!made.has(key)) runs += 1;
      const state = made.has(key) ? "done" : "waiting";
      made.add(key);
      const replayed = "an unchanged run gives +4.724, as in the cache";
      return { reply: { kind: "without", state, turn: state === "done" ? null : "turn-1", replayed, notes: [] } };
    }
    if ((ask.kind === "compare" || ask.kind === "compare-attention") && ask.against.without?.length) {
      if (!made.has(JSON.stringify(ask.against)))
        return { failure: { code: "run-first", message: "This run has not been made yet." } };
      return kernel({ ...ask, against: { cache: null, prompt: ask.prompt === 1 ? 0 : 1 } });
    }
    if (ask.kind !== "effects") return kernel(ask);
    if (options.refusal) return { failure: { code: "not-replayed", message: options.refusal } };
    const { measure = true, stop: _, prompt: __, ...about } = ask; // all prompts are measured at once
    const key = JSON.stringify(about);
    const job = jobs.get(key) ?? jobOf(ask);
    jobs.set(key, job);
    const begun = job.asked > idle;
    if (measure) {
      if (begun && job.done < job.order.length) {
        runs += 1;
        for (const at of job.order.slice(job.done, job.done + batch))
          job.total[at] = (job.direct[at] ?? 0) * 0.8 + 0.3 * noise(at + 3);
        job.done = Math.min(job.order.length, job.done + batch);
      }
      job.asked += 1;
    }
    const isDone = job.done === job.order.length;
    const reply: EffectsReply = {
      kind: "effects",
      of: ask.of ?? "heads",
      state: isDone ? "done" : measure ? "waiting" : "stopped",
      turn: isDone || !measure ? null : "turn-1",
      done: job.done,
      total: begun ? job.order.length : 0,
      before: begun ? 4.724 : null,
      replayed: begun ? "an unchanged run gives +4.724, as in the cache" : "",
      replaced_by: "zero",
      prompts: 1,
      notes: [],
    };
    const buffers = [job.total, job.direct, job.estimate].map(
      (values) => (begun ? values.slice() : new Float32Array(values.length).fill(NaN)).buffer as ArrayBuffer,
    );
    return { reply, buffers };
  };
  return Object.assign(answer, { runs: () => runs });
}
