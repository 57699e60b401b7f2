// The texts of the prompts for the list: requested one after the other, and only for visible rows.
import { signal as state } from "@preact/signals-core";
import { legible } from "../../base/legible";
import { tokens } from "../../state/questions";
import type { Client } from "../../wire/client";
import type { TokenLabel } from "../../wire/protocol.gen";

const MOST = 160;

export class PromptTexts {
  /** Counts the received texts. */
  readonly version = state(0);
  readonly #texts = new Map<number, string>();
  #source = "";
  #wanted: number[] = [];
  #busy = false;

  constructor(
    readonly client: Client,
    readonly signal: AbortSignal,
  ) {}

  look(source: string, prompts: number[]): void {
    if (source !== this.#source) this.#texts.clear();
    this.#source = source;
    this.#wanted = prompts;
    void this.#pump();
  }

  text(prompt: number): string | null {
    return this.#texts.get(prompt) ?? null;
  }

  async #pump(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    try {
      for (let next = this.#next(); next !== undefined && !this.signal.aborted; next = this.#next()) {
        const source = this.#source;
        const result = await this.client.latest("prompt texts", tokens({ prompt: next }));
        if (!result || source !== this.#source) continue;
        this.#texts.set(next, textOf(result.reply.tokens));
        this.version.value += 1;
      }
    } catch {
      this.#wanted = []; // the list works without texts; scrolling requests them again
    } finally {
      this.#busy = false;
    }
  }

  #next(): number | undefined {
    return this.#wanted.find((prompt) => !this.#texts.has(prompt));
  }
}

/** A prompt on one line, without padding; of a long one only its start and its end, where the model is read. */
export function textOf(tokens: TokenLabel[]): string {
  const text = tokens
    .filter((token) => !token.padding)
    .map((token) => token.text)
    .join("")
    .replace(/\n/g, "↵")
    .trim();
  const characters = [...text.slice(0, MOST), ...text.slice(Math.max(MOST, text.length - MOST))];
  if (characters.length <= MOST) return legible(text);
  return legible(`${characters.slice(0, MOST / 2).join("")} … ${characters.slice(-MOST / 2).join("")}`);
}
