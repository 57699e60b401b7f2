// What hosts of the sidebar (JupyterLab, VS Code) build upon. The inline panel's entry is anywidget.ts.
export { signal, untracked, type ReadonlySignal, type Signal } from "@preact/signals-core";
export { Caches } from "./caches";
export { saveWith } from "./export/save";
export { Inspection } from "./inspection";
export { shown } from "./legible";
export { child, watch } from "./lifetime";
export type { Link, LinkState } from "./link";
export type { Answer, Question } from "./protocol.gen";
export { SNAPSHOT_EVENT, type SnapshotRequest } from "./recorder";
export { mountSnapshot, type Words } from "./saved";
export { asSelection } from "./selection";
export { type Opened, Sidebar, type SidebarHost } from "./sidebar";
export type { Snapshot } from "./snapshot";
export { type Checked, checkSnapshot } from "./snapshot-check";
export { summaryOf } from "./summary";
export type { Place, Places } from "./views/kernels";
export { mountView } from "./view";
export { asWho, attaching, judge, WHO } from "./who";
