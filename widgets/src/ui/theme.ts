// The theme of the surrounding page: which host's CSS variables apply, and whether the theme is light, dark or of high
// contrast.
import { signal as state } from "@preact/signals-core";
import { parentOf } from "../base/ancestors";
import { watch } from "../base/lifetime";
import type { Theme } from "../draw/colours";
import type { Store } from "../state/store";

/**
 * The host whose CSS variables the styles use. JupyterLab's variables are used only if JupyterLab has marked the page.
 * These variables exist on other pages, too: in VS Code's output page and in HTML documents, ipywidgets' bundle sets
 * them to fixed light values, even if the theme is dark.
 */
export type Host = "jupyter" | "vscode" | "other";

interface PageTheme {
  host: Host;
  theme: Theme;
  /** Whether the theme is a high-contrast theme. */
  contrast: boolean;
}

/** The kind of theme in VS Code; null in other hosts. A light high-contrast theme has both high-contrast classes. */
function kindOf(body: HTMLElement): string | null {
  const kinds = ["vscode-high-contrast-light", "vscode-high-contrast", "vscode-dark", "vscode-light"];
  return body.getAttribute("data-vscode-theme-kind") ?? kinds.find((kind) => body.classList.contains(kind)) ?? null;
}

export function hostOf(body = document.body): Host {
  return kindOf(body) !== null ? "vscode" : body.hasAttribute("data-jp-theme-light") ? "jupyter" : "other";
}

function pageTheme(node: HTMLElement, system: MediaQueryList): PageTheme {
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
 * Whether the background behind the node is dark. Pages declare their theme in many different ways, but all of them
 * paint a background.
 */
function isDark(node: HTMLElement, isSystemDark: boolean): boolean {
  for (let ancestor = node.isConnected ? parentOf(node) : document.body; ancestor; ancestor = parentOf(ancestor)) {
    const [r = 0, g = 0, b = 0, alpha = 1] = (
      /^rgba?\((.*)\)$/.exec(getComputedStyle(ancestor).backgroundColor)?.[1] ?? "0 0 0 0"
    )
      .split(/[\s,/]+/)
      .map(Number);
    if (alpha > 0.5) return 0.2126 * r + 0.7152 * g + 0.0722 * b < 110;
  }
  // If no background is painted, the browser's default applies. A frame may show the background of the page around it.
  const scheme = getComputedStyle(document.documentElement).colorScheme ?? "";
  if (scheme.includes("dark")) return isSystemDark || !scheme.includes("light");
  return isSystemDark && window.parent !== window;
}

/** Gives an element the theme of the surrounding page, and updates it when the page's theme changes. */
export function followTheme(
  node: HTMLElement,
  signal: AbortSignal,
  store: Pick<Store, "theme"> = { theme: state<Theme>("light") },
): void {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const update = (): void => {
    const { host, theme, contrast } = pageTheme(node, system);
    node.dataset["host"] = host;
    node.toggleAttribute("data-contrast", contrast);
    store.theme.value = theme;
  };
  const attributes = new MutationObserver(update);
  for (const root of [document.documentElement, document.body]) attributes.observe(root, { attributes: true });
  const size = new ResizeObserver(update); // calls `update` again when the node is added to the page
  size.observe(node);
  signal.addEventListener("abort", () => (attributes.disconnect(), size.disconnect()), { once: true });
  system.addEventListener("change", update, { signal });
  // The background may change gradually.
  document.addEventListener("transitionend", (event) => event.propertyName === "background-color" && update(), {
    signal,
  });
  update();
  watch(signal, () => void (node.dataset["theme"] = store.theme.value));
}
