// A chapter of the documentation, with a list of all chapters. Hosts show it in a tab or a dialog. The inline panel
// shows it over its views. All text is from our own documentation, and is drawn without HTML.
import { computed, type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { render } from "lit-html";
import { asChapter, CHAPTERS, type Chapter } from "../base/chapters";
import { keysOf } from "../base/keys-of";
import { child, element, watch } from "../base/lifetime";
import { markdown } from "./markdown";
import { prose } from "./prose";

export interface HelpView {
  /** Shows another chapter. */
  open(chapter: Chapter): void;
  readonly chapter: ReadonlySignal<Chapter>;
}

/** Mounts the list and the chapter. `load` returns a chapter's Markdown. If it fails, the error's message is shown. */
export function mountHelp(
  parent: HTMLElement,
  first: Chapter,
  load: (chapter: Chapter) => Promise<string>,
  signal: AbortSignal,
): HelpView {
  const now = state<{ chapter: Chapter; anchor: string | null }>({ chapter: first, anchor: null });
  const select = element("select", "", { "aria-label": "Chapter" });
  for (const chapter of keysOf(CHAPTERS)) select.append(element("option", "", { value: chapter }, CHAPTERS[chapter]));
  const article = element("article", "rs-chapter", { tabindex: "-1" });
  parent.append(element("div", "rs-help-bar", {}, select), article);
  const open = (chapter: Chapter, anchor: string | null = null): void => void (now.value = { chapter, anchor });
  select.addEventListener("change", () => open(asChapter(select.value) ?? first), { signal });

  let loading: AbortController | null = null;
  const linkTo = (address: string): HTMLElement | null => {
    if (address.startsWith("https://"))
      return element("a", "", { href: address, target: "_blank", rel: "noopener noreferrer" });
    const [, name, anchor] = /^([\w-]+)\.md(?:#(.*))?$/.exec(address) ?? [];
    const chapter = asChapter(name);
    if (!chapter) return null; // only the whole documentation has this chapter
    const link = element("a", "", { href: `#${chapter}` });
    const follow = (event: Event): void => (event.preventDefault(), open(chapter, anchor ?? null));
    link.addEventListener("click", follow, { signal: loading?.signal ?? signal }); // ends with this chapter
    return link;
  };

  watch(signal, () => {
    const { chapter, anchor } = now.value;
    loading?.abort();
    const { signal: wanted } = (loading = child(signal));
    untracked(() => {
      select.value = chapter;
      article.setAttribute("aria-label", CHAPTERS[chapter]);
      article.setAttribute("aria-busy", "true");
    });
    load(chapter).then(
      (text) => {
        if (wanted.aborted) return;
        article.replaceChildren(...markdown(text, linkTo));
        article.removeAttribute("aria-busy");
        const place = anchor === null ? null : article.querySelector(`[data-anchor="${CSS.escape(anchor)}"]`);
        if (place) place.scrollIntoView({ block: "start" });
        else article.scrollTop = 0;
      },
      (error: unknown) => {
        if (wanted.aborted) return;
        const words = element("p", "rs-help-trouble", { role: "alert" });
        render(prose(error instanceof Error ? error.message : String(error)), words);
        article.replaceChildren(words);
        article.removeAttribute("aria-busy");
      },
    );
  });
  return { open, chapter: computed(() => now.value.chapter) };
}
