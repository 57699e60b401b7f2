// Requests that run the user's model. The kernel runs it only in turns, between cells. The view sends a request, makes
// the kernel take the turn that the reply names, and sends the request again, until nothing is left.
import { child, later } from "../base/lifetime";
import type { Ask, Client, ReplyTo, Result } from "../wire/client";

type Run = "effects" | "without";
/** What a run waits for, if it waits for long: a cell of the user, or something that the host cannot determine. */
export type Behind = "cell" | "kernel";

/** After this time without an answer, a view shows what it waits for. */
const SAYS_AFTER_MS = 400;
/** The same time if the host does not know whether a cell is running. One run may take this long. */
const UNKNOWN_AFTER_MS = 2000;
/** If the host cannot make the kernel take turns, the view asks again after this time. Cells can run in between. */
const PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1000;
/** After this many turns in which nothing happened, the kernel counts as one that takes no turns. */
const MOST_IDLE = 300;

export class NoTurns extends Error {}

/**
 * Asks until the reply is not "waiting", `take` returns false, or `signal` aborts. A reply after the abort is
 * dropped. `behind` is called when the wait for a turn becomes long, and with null when it is over.
 *
 * Raises:
 *   RequestFailed: If the kernel refuses. NoTurns: if nothing happens in its turns.
 */
export async function inTurns<K extends Run>(
  client: Client,
  ask: Extract<Ask, { kind: K }>,
  take: (result: Result<K>) => boolean,
  behind: (what: Behind | null) => void,
  signal: AbortSignal,
): Promise<void> {
  let [before, idle] = ["", 0];
  while (!signal.aborted) {
    const wait = child(signal);
    const since = Date.now();
    const says = (): void => {
      const isRunning = client.transport.isCellRunning?.();
      if (isRunning) behind("cell");
      else if (isRunning === undefined && Date.now() - since >= UNKNOWN_AFTER_MS) behind("kernel");
      later(SAYS_AFTER_MS, wait.signal, says);
    };
    later(SAYS_AFTER_MS, wait.signal, says);
    try {
      const result = await client.quietly<K>(ask);
      if (signal.aborted) return;
      const reply: ReplyTo<Run> = result.reply;
      const { state, turn } = reply;
      if (!take(result) || state !== "waiting") return;
      const now = JSON.stringify({ ...reply, turn: null });
      idle = now === before ? idle + 1 : 0;
      if (idle === 0) behind(null);
      before = now;
      if (idle > MOST_IDLE && client.transport.isCellRunning?.() !== true)
        throw new NoTurns("The kernel does not run the model. Restart it, and run the cells again.");
      const { transport } = client;
      const [takesTurns, thrifty] = [transport.takeTurn !== undefined, transport.thrifty ?? false];
      if (turn) await transport.takeTurn?.(turn);
      // The user's cells come first. In VS Code, each request waits for them anyway.
      const pause = idle > 2 ? Math.min(LONGEST_PAUSE_MS, PAUSE_MS * idle) : takesTurns || thrifty ? 0 : PAUSE_MS;
      if (pause > 0) await new Promise<void>((settle) => setTimeout(settle, pause));
    } finally {
      wait.abort();
    }
  }
}
