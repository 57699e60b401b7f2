// The line below the token strip while two runs are compared. It says how the positions of the runs are paired. It may
// have a button that pairs them by token, or one that ends this pairing. It is hidden if there is nothing to say.
import { html, nothing, render } from "lit-html";
import { plural } from "../../base/format";
import { watch } from "../../base/lifetime";
import { aligned } from "../../state/comparison";
import type { Store } from "../../state/store";
import { alignByToken } from "../../ui/align-offer";
import type { PairingReply } from "../../wire/protocol.gen";

/** How the positions are paired, in words; null if there is nothing to say. */
export function pairingWords({
  how,
  pairs,
  first_length: first,
  second_length: second,
  different,
}: PairingReply): string | null {
  switch (how) {
    case "index":
      return different > 0 ? `B has other tokens at ${plural(different, "position")}` : null;
    case "padding":
      return "tokens paired with B by index, padding not counted";
    case "none":
      return `${first} tokens in A, ${second} in B: not paired`;
    case "token": {
      if (pairs === null) return "paired with B by token, in each prompt differently";
      const left = second - pairs.length;
      const rest = left > 0 ? `, ${left} of B left out` : "";
      return `${pairs.length} of ${first} tokens paired with B by token${rest}`;
    }
  }
}

export function mountPairing(node: HTMLElement, store: Store, signal: AbortSignal): void {
  watch(signal, () => {
    const found = store.runs.pairing.value;
    const words = found && pairingWords(found);
    const against = store.against.value;
    node.hidden = words === null || against === null;
    if (!words || !against) return render(nothing, node);
    const isSameLength = found?.first_length === found?.second_length;
    const back = html`<button type="button" class="rs-act rs-align"
        title=${isSameLength ? "Pairs each position with the same position of B" : "Compares only the last tokens"}
        @click=${() => (store.against.value = aligned(against, null))}>${
          isSameLength ? "pair by index" : "do not align"
        }</button>`;
    const canAlign = !store.isSaved.value && found?.has_tokens;
    const act = against.align ? (store.isSaved.value ? nothing : back) : canAlign ? alignByToken(store) : nothing;
    render(html`<span>${words}${act === nothing ? "" : " · "}</span>${act}`, node);
  });
}

/** What the tooltip of a token says about the paired position in B; "" if it is the same position, or not known. */
export function besideWords(store: Store, position: number): string {
  const beside = store.runs.beside.value;
  if (beside === null) return "";
  const at = beside.get(position);
  return at === undefined ? "; paired with no position of B" : at === position ? "" : `; position ${at} in B`;
}
