// The token strip as an attention view. The tint of a token shows how much the head in focus attends from the
// destination to this token; the bar below the token shows the token's contribution. This module only sets styles and
// attributes of existing elements, because it runs at every hover.
import type { ReadonlySignal } from "@preact/signals-core";
import { signed } from "../../base/format";
import { child, later, watch } from "../../base/lifetime";
import { css, sequentialRgb } from "../../draw/colours";
import { inkOn } from "../../draw/ink";
import { showsEach } from "../../state/next-tokens";
import type { Store } from "../../state/store";
import type { Focus } from "./reading";
import { attention } from "./reading-words";
import { barStyle, tallestShown } from "./segment-paint";
import { showsFeature } from "./strip-feature";

const MOMENT_MS = 150;

export function paintStrip(
  strip: HTMLElement,
  store: Store,
  { strip: shown, waiting }: Focus,
  drawn: ReadonlySignal<number>,
  signal: AbortSignal,
): void {
  watch(signal, () => {
    void drawn.value;
    if (showsEach(store) || showsFeature(store)) return;
    const found = shown.value;
    const theme = store.theme.value;
    const most = tallestShown(store, found?.contributions ?? null);
    strip.classList.toggle("rs-painted", found !== null);
    strip.dataset["head"] = found?.head ?? "";
    for (const option of strip.querySelectorAll<HTMLElement>("[data-position]")) {
      const at = Number(option.dataset["position"]);
      option.removeAttribute("data-value");
      const weight = found?.weights[at];
      if (!found || weight === undefined || !Number.isFinite(weight)) {
        option.removeAttribute("data-attention");
        option.removeAttribute("aria-description");
        option.style.cssText = "";
        continue;
      }
      const added = found.contributions?.[at] ?? 0;
      const colour = sequentialRgb(weight, theme);
      option.dataset["attention"] = weight.toFixed(4);
      option.setAttribute(
        "aria-description",
        `${found.head}: attention ` +
          `${attention(weight)}${found.contributions ? `, contributes ${signed(added, most)}` : ""}`,
      );
      option.style.cssText = `--read:${css(colour)};--ink:${inkOn(colour)};${barStyle(store, added, most)}`;
    }
  });
  // Dims the strip while another head's reading is loading, but only if this takes longer than MOMENT_MS.
  let pause: AbortController | null = null;
  watch(signal, () => {
    pause?.abort();
    if (!waiting.value || showsEach(store) || showsFeature(store)) return strip.classList.remove("rs-waiting");
    pause = child(signal);
    later(MOMENT_MS, pause.signal, () => strip.classList.add("rs-waiting"));
  });
}
