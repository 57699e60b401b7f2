// The look of the surrounding page: which host's CSS variables apply, light or dark, and high contrast or not.
import { signal as state } from "@preact/signals-core";
import { parentOf } from "../base/ancestors";
import { watch } from "../base/lifetime";
import type { Theme } from "../draw/colours";
import type { Store } from "../state/store";

/**
 * The host whose CSS variables the styles use. JupyterLab's variables exist on other pages, too: ipywidgets' bundle
 * sets them to fixed light values in VS Code's output page and in documents, whatever the theme is. So they are used
 * only where JupyterLab has marked the page as its own.
 */
export type Host = "jupyter" | "vscode" | "other";

interface Look {
  host: Host;
  theme: Theme;
  /** Whether the theme is a high-contrast theme. */
  contrast: boolean;
}

/** VS Code's kind of theme; null elsewhere. A light high-contrast theme has both high-contrast classes. */
function kindOf(body: HTMLElement): string | null {
  const kinds = ["vscode-high-contrast-light", "vscode-high-contrast", "vscode-dark", "vscode-light"];
  return body.getAttribute("data-vscode-theme-kind") ?? kinds.find((kind) => body.classList.contains(kind)) ?? null;
}

export function hostOf(body = document.body): Host {
  return kindOf(body) !== null ? "vscode" : body.hasAttribute("data-jp-theme-light") ? "jupyter" : "other";
}

function read(node: HTMLElement, system: MediaQueryList): Look {
  const body = document.body;
  const kind = kindOf(body);
  if (kind !== null)
    return {
      host: "vscode",
      theme: kind.endsWith("light") ? "light" : "dark",
      contrast: kind.includes("high-contrast"),
    };
  const jupyter = body.getAttribute("data-jp-theme-light");
  if (jupyter !== null) return { host: "jupyter", theme: jupyter === "false" ? "dark" : "light", contrast: false };
  return { host: "other", theme: isDark(node, system.matches) ? "dark" : "light", contrast: false };
}

/**
 * Whether the background behind the node is dark. Pages declare their theme in many ways, but all paint a background.
 */
function isDark(node: HTMLElement, system: boolean): boolean {
  for (let at = node.isConnected ? parentOf(node) : document.body; at; at = parentOf(at)) {
    const [r = 0, g = 0, b = 0, alpha = 1] = (
      /^rgba?\((.*)\)$/.exec(getComputedStyle(at).backgroundColor)?.[1] ?? "0 0 0 0"
    )
      .split(/[\s,/]+/)
      .map(Number);
    if (alpha > 0.5) return 0.2126 * r + 0.7152 * g + 0.0722 * b < 110;
  }
  // If nothing is painted, the browser's default applies. The background of a frame may be that of the page around it.
  const scheme = getComputedStyle(document.documentElement).colorScheme ?? "";
  if (scheme.includes("dark")) return system || !scheme.includes("light");
  return system && window.parent !== window;
}

/** Gives an element the theme of the surrounding page, and follows its changes. */
export function followTheme(
  node: HTMLElement,
  signal: AbortSignal,
  store: Pick<Store, "theme"> = { theme: state<Theme>("light") },
): void {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const update = (): void => {
    const { host, theme, contrast } = read(node, system);
    node.dataset["host"] = host;
    node.toggleAttribute("data-contrast", contrast);
    store.theme.value = theme;
  };
  const attributes = new MutationObserver(update);
  for (const root of [document.documentElement, document.body]) attributes.observe(root, { attributes: true });
  const placed = new ResizeObserver(update); // the node may be added to the page later
  placed.observe(node);
  signal.addEventListener("abort", () => (attributes.disconnect(), placed.disconnect()), { once: true });
  system.addEventListener("change", update, { signal });
  // The background may fade from light to dark.
  document.addEventListener("transitionend", (event) => event.propertyName === "background-color" && update(), {
    signal,
  });
  update();
  watch(signal, () => void (node.dataset["theme"] = store.theme.value));
}
