// @vitest-environment happy-dom
import { afterEach, expect, it, vi } from "vitest";

vi.stubGlobal("origin", "vscode-webview://ours"); // the test's page has no origin
vi.stubGlobal("acquireVsCodeApi", () => ({
  postMessage: () => undefined,
  setState: () => undefined,
  getState: () => undefined,
}));
const { Host } = await import("../page/host");

const end = new AbortController();
afterEach(() => end.abort());

it("receives messages only from the extension, whatever data others send", () => {
  const received: unknown[] = [];
  new Host(end.signal).onMessage("visible", (message) => received.push(message));
  const visible = { say: "visible", visible: true };
  const send = (data: unknown, origin: string): boolean =>
    window.dispatchEvent(new MessageEvent("message", { data, origin }));
  for (const origin of ["https://elsewhere.example", "null", ""]) send(visible, origin);
  for (const data of [null, undefined, 7, "visible", [], {}]) send(data, window.origin);
  expect(received).toEqual([]);
  send(visible, window.origin);
  expect(received).toEqual([visible]);
});
