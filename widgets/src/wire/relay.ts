// A transport that wraps another one. It is the base class for transports that record messages, or answer some requests
// themselves.
import { type ReadonlySignal, signal as state } from "@preact/signals-core";
import type { Transport } from "./client";
import type { Question } from "./protocol.gen";

export class Relay implements Transport {
  readonly occupied: ReadonlySignal<boolean>;
  readonly thrifty: boolean;

  constructor(readonly transport: Transport) {
    this.occupied = transport.occupied ?? state(false);
    this.thrifty = transport.thrifty ?? false;
  }

  get takeTurn(): Transport["takeTurn"] {
    const { transport } = this;
    return transport.takeTurn && (async (token) => transport.takeTurn?.(token));
  }
  isCellRunning(): boolean | undefined {
    return this.transport.isCellRunning?.();
  }
  send(question: Question, buffers?: ArrayBuffer[]): void {
    this.transport.send(question, buffers);
  }
  onMessage(listener: (message: unknown, buffers: DataView[]) => void, signal: AbortSignal): void {
    this.transport.onMessage(listener, signal);
  }
  onLost(listener: () => void, signal: AbortSignal): void {
    this.transport.onLost?.(listener, signal);
  }
  onRenewed(listener: () => void, signal: AbortSignal): void {
    this.transport.onRenewed?.(listener, signal);
  }
  isSilenceLoss(): boolean {
    return this.transport.isSilenceLoss?.() ?? false;
  }
}
