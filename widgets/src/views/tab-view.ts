// A view below the charts. `tabs.ts` has the list of all views.
import type { Chapter } from "../base/chapters";
import type { ReadPicture } from "../export/pictures";
import type { Scene } from "../state/scene";
import type { Store } from "../state/store";
import type { Ask } from "../wire/client";
import type { AttentionRoom } from "./attention/attention-room";

export interface TabView {
  /** The text and the tooltip of the tab. */
  readonly name: string;
  readonly tip: string;
  /** The chapter of the documentation that "Help" opens. */
  readonly chapter: (store: Store) => Chapter;
  /** Whether the tab is shown. Without this function, it is always shown. */
  readonly isThere?: (store: Store) => boolean;
  /** What the view requests, in addition to the requests for the charts and the pinned heads. */
  readonly requests: (scene: Scene) => Ask[];
  /** What the view may request in addition, when the user changes an option within the view. */
  readonly options: (scene: Scene) => Ask[];
  /** Creates the view. `controls` is an element next to the tabs. Returns a function that reads the view's picture. */
  readonly mount: (parent: HTMLElement, controls: HTMLElement, room: AttentionRoom, signal: AbortSignal) => ReadPicture;
}
