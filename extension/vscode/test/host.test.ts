// @vitest-environment happy-dom
import { afterEach, expect, it, vi } from "vitest";

vi.stubGlobal("origin", "vscode-webview://ours"); // this page has no address of its own
vi.stubGlobal("acquireVsCodeApi", () => ({
  postMessage: () => undefined,
  setState: () => undefined,
  getState: () => undefined,
}));
const { Host } = await import("../page/host");

const end = new AbortController();
afterEach(() => end.abort());

it("hears the extension, and nobody else, whatever they send", () => {
  const heard: unknown[] = [];
  new Host(end.signal).hear("visible", (message) => heard.push(message));
  const visible = { say: "visible", visible: true };
  const send = (data: unknown, origin: string): boolean =>
    window.dispatchEvent(new MessageEvent("message", { data, origin }));
  for (const origin of ["https://elsewhere.example", "null", ""]) send(visible, origin);
  for (const data of [null, undefined, 7, "visible", [], {}]) send(data, window.origin);
  expect(heard).toEqual([]);
  send(visible, window.origin);
  expect(heard).toEqual([visible]);
});
