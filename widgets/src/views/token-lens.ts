import type { Client } from "../client";
import type { Store } from "../store";

export function mountTokenLens(_parent: HTMLElement, _controls: HTMLElement, _store: Store, _client: Client, _signal: AbortSignal): void {}
