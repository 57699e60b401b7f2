/** Applies the settings of schema/sidebar.json, now and when they change. */

import type { JupyterFrontEnd } from "@jupyterlab/application";
import type { ISettingRegistry } from "@jupyterlab/settingregistry";
import { listen } from "@residscope/widgets";

import type { JupyterPlaces } from "./places";
import type { SidebarWidget } from "./widgets";

interface Settings {
  side: "left" | "right";
  followFocus: boolean;
  refresh: "cells" | "poll";
  pollSeconds: number;
}

export const DEFAULTS: Settings = { side: "right", followFocus: true, refresh: "cells", pollSeconds: 3 };

export async function applySettings(
  registry: ISettingRegistry,
  plugin: string,
  app: JupyterFrontEnd,
  sidebar: SidebarWidget,
  places: JupyterPlaces,
  signal: AbortSignal,
): Promise<void> {
  let timer: ReturnType<typeof setInterval> | undefined;
  let { side } = DEFAULTS;
  const apply = (settings: Settings): void => {
    if (settings.side !== side) {
      side = settings.side;
      app.shell.add(sidebar, side, { rank: 600 });
    }
    places.follow.value = settings.followFocus;
    clearInterval(timer);
    if (settings.refresh === "poll")
      timer = setInterval(() => sidebar.isVisible && sidebar.sidebar.refresh(), settings.pollSeconds * 1000);
  };
  try {
    const loaded = await registry.load(plugin);
    const read = (): void => apply({ ...DEFAULTS, ...(loaded.composite as Partial<Settings>) });
    listen(loaded.changed, read, signal);
    signal.addEventListener("abort", () => clearInterval(timer), { once: true });
    read();
  } catch (error) {
    console.warn("Residscope’s settings could not be read; the defaults are used.", error);
  }
}
