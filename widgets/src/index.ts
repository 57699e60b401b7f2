// What hosts of the sidebar (JupyterLab, VS Code) build upon. The inline panel's entry is anywidget.ts.
export { batch, computed, effect, signal, untracked, type ReadonlySignal, type Signal } from "@preact/signals-core";
export { Caches } from "./caches";
export type { Transport } from "./client";
export { Inspection } from "./inspection";
export { child, element, later, watch } from "./lifetime";
export type { Link, LinkState } from "./link";
export { type Question, WIRE } from "./protocol.gen";
export { asSelection, type Selection } from "./selection";
export { type Opened, Sidebar, type SidebarHost } from "./sidebar";
export { followTheme } from "./theme";
export type { Place, Places } from "./views/kernels";
export { mountLinkState } from "./views/link-state";
