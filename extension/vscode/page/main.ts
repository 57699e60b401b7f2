// The page: the sidebar, or one view in an editor tab.
import {
  asOpened,
  Caches,
  chapterOf,
  child,
  HELP_EVENT,
  type Inspection,
  mountView,
  type Place,
  Sidebar,
  saveWith,
  signal as state,
  untracked,
  watch,
} from "@residscope/widgets";
import type { Command } from "../src/messages";
import { Host } from "./host";
import { HostLink } from "./link";
import { picturesWith } from "./pictures";

const life = new AbortController();
const host = new Host(life.signal);
const root = document.getElementById("residscope") as HTMLElement;
const visible = state(false);
const focused = state<Place | null>(null);
const running = state<Place[]>([]);
const all = new Map<string, Caches>();
const pictures = picturesWith(host);

function cachesOf(path: string): Caches {
  const known = all.get(path);
  if (known) return known;
  const caches = new Caches(new HostLink(path, host, life.signal), life.signal);
  all.set(path, caches);
  return caches;
}

function handleCommands(
  inspection: () => Inspection | null,
  more: Partial<Record<Command, (name: string | null) => void>>,
  signal = life.signal,
): void {
  const known: Partial<Record<Command, (name: string | null) => void>> = {
    next: () => inspection()?.store.step(1),
    previous: () => inspection()?.store.step(-1),
    ...more,
  };
  host.onMessage("command", ({ command, name }) => known[command]?.(name), signal);
}

host.onMessage("visible", (message) => (visible.value = message.visible));
host.onMessage("places", (message) => {
  focused.value = message.focused;
  running.value = message.running;
});

host.onMessage("sidebar", ({ remembered }) => {
  document.body.classList.add("rs-in-sidebar");
  const before = new Map(remembered.map((opened) => [opened.path, opened]));
  const sidebar = new Sidebar(
    root,
    {
      places: { focused, running, picked: state<string | null>(null) },
      visible,
      caches: cachesOf,
      enlarge: (opened) => host.post({ say: "enlarge", opened }),
      remembered: async (path) => before.get(path) ?? null,
      remember: (opened) => {
        before.set(opened.path, opened);
        host.post({ say: "remember", opened });
      },
      pictures,
      chapter: "vscode",
    },
    life.signal,
  );
  host.onMessage("moved", ({ from, to }) => {
    const opened = before.get(from);
    before.delete(from);
    if (opened) before.set(to, { ...opened, path: to });
    for (const path of [from, to]) sidebar.drop(path); // the sidebar may already show the new path
  });
  handleCommands(() => sidebar.inspection, {
    inspect: (name) => {
      sidebar.inspect(name);
      sidebar.focus();
    },
    enlarge: () => sidebar.enlarge(),
    refresh: () => sidebar.refresh(),
    help: () => sidebar.help(),
  });
});

let view = child(life.signal);
let firstPath: string | null = null;
host.onMessage("view", ({ opened: first }) => {
  // VS Code may create the page again (in a new window), or the notebook may have been renamed. In both cases the view
  // keeps its selection.
  const storedView = asOpened(host.kept);
  const isSame = storedView?.name === first.name && (storedView.path === first.path || storedView.path === firstPath);
  const opened = isSame ? { ...first, selection: storedView.selection } : first;
  firstPath = first.path;
  view.abort();
  const { signal } = (view = child(life.signal));
  const inspection = mountView(root, cachesOf(opened.path), opened, signal, pictures);
  watch(signal, () => {
    const selection = inspection.selection.value;
    untracked(() => host.keep({ ...opened, selection: inspection.row.peek() ? selection : opened.selection }));
  });
  handleCommands(() => inspection, { help: () => root.querySelector<HTMLElement>(".rs-help-open")?.click() }, signal);
});

for (const event of ["focusin", "pointerdown"])
  window.addEventListener(event, () => host.post({ say: "used" }), { signal: life.signal });
window.addEventListener(HELP_EVENT, (event) => {
  const chapter = chapterOf(event);
  if (!chapter) return;
  event.preventDefault();
  host.post({ say: "help", chapter });
});
saveWith((name, blob) => host.save(name, blob));
host.post({ say: "hello" });
