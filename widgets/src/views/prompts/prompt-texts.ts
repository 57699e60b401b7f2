// The texts of the prompts in the list. They are requested only for visible rows, one after the other.
import { signal as state } from "@preact/signals-core";
import { legible } from "../../base/legible";
import { tokens } from "../../state/questions";
import type { Client } from "../../wire/client";
import type { TokenLabel } from "../../wire/protocol.gen";

const MAX_CHARACTERS = 160;

export class PromptTexts {
  /** Changes when a text was received, or the texts were dropped. A watcher that reads it then runs again. */
  readonly version = state(0);
  readonly #texts = new Map<number, string>();
  #source = "";
  #wanted: number[] = [];
  #isRequesting = false;

  constructor(
    readonly client: Client,
    readonly signal: AbortSignal,
  ) {}

  /** Requests the texts of these prompts. `source` identifies the cache and its state. */
  request(source: string, prompts: number[]): void {
    if (source !== this.#source && this.#texts.size > 0) {
      this.#texts.clear();
      this.version.value += 1;
    }
    this.#source = source;
    this.#wanted = prompts;
    void this.#requestAll();
  }

  text(prompt: number): string | null {
    return this.#texts.get(prompt) ?? null;
  }

  async #requestAll(): Promise<void> {
    if (this.#isRequesting) return;
    this.#isRequesting = true;
    try {
      for (let next = this.#nextPrompt(); next !== undefined && !this.signal.aborted; next = this.#nextPrompt()) {
        const source = this.#source;
        const result = await this.client.latest("prompt texts", tokens({ prompt: next })).catch(() => {
          // The list works without texts. When the list scrolls, they are requested again.
          if (source === this.#source) this.#wanted = [];
          return null;
        });
        if (!result || source !== this.#source) continue;
        this.#texts.set(next, textOf(result.reply.tokens));
        this.version.value += 1;
      }
    } finally {
      this.#isRequesting = false;
    }
  }

  #nextPrompt(): number | undefined {
    return this.#wanted.find((prompt) => !this.#texts.has(prompt));
  }
}

/** A prompt on one line, without padding. A long text is shortened to its start and its end. */
export function textOf(tokens: TokenLabel[]): string {
  const text = tokens
    .filter((token) => !token.padding)
    .map((token) => token.text)
    .join("")
    .replace(/\n/g, "↵")
    .trim();
  const characters = [
    ...text.slice(0, MAX_CHARACTERS),
    ...text.slice(Math.max(MAX_CHARACTERS, text.length - MAX_CHARACTERS)),
  ];
  if (characters.length <= MAX_CHARACTERS) return legible(text);
  return legible(
    `${characters.slice(0, MAX_CHARACTERS / 2).join("")} … ${characters.slice(-MAX_CHARACTERS / 2).join("")}`,
  );
}
