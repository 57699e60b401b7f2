// Light or dark, from the host: JupyterLab and Notebook, VS Code, else the system.
import { signal as state } from "@preact/signals-core";
import { watch } from "./lifetime";
import type { Store, Theme } from "./store";

function read(system: MediaQueryList): Theme {
  const body = document.body;
  const jupyter = body.getAttribute("data-jp-theme-light");
  if (jupyter !== null) return jupyter === "false" ? "dark" : "light";
  if (body.classList.contains("vscode-light") || body.classList.contains("vscode-high-contrast-light")) return "light";
  if (body.classList.contains("vscode-dark") || body.classList.contains("vscode-high-contrast")) return "dark";
  return system.matches ? "dark" : "light";
}

export function followTheme(store: Pick<Store, "theme">, signal: AbortSignal): void {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const update = (): void => {
    store.theme.value = read(system);
  };
  const observer = new MutationObserver(update);
  observer.observe(document.body, { attributes: true, attributeFilter: ["class", "data-jp-theme-light"] });
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });
  system.addEventListener("change", update, { signal });
  update();
}

/** An element that stands alone, dressed as the host is. */
export function themed(node: HTMLElement, signal: AbortSignal): void {
  const theme = state<Theme>("light");
  followTheme({ theme }, signal);
  watch(signal, () => void (node.dataset["theme"] = theme.value));
}
