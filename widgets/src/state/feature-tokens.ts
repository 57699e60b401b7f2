// The activations of the chosen feature of an SAE, one for each token.
import type { CacheFacts, FeatureTokensReply, ReadFeatureTokens } from "../wire/protocol.gen";

export interface FeatureTokens {
  /** The key, from `featureKey`, of the selection that the values belong to. */
  key: string;
  reply: FeatureTokensReply;
  /** [position]; NaN at padding. */
  values: Float32Array;
}

type Chosen = { feature: number | null } & Pick<ReadFeatureTokens, "prompt" | "sae" | "state">;

/** The state of the SAE with this name (null: the first one). When it changes, features are requested again. */
export function saeState(name: string | null, saes: CacheFacts["saes"] = []): string | null {
  return (name === null ? saes[0] : saes.find((sae) => sae.name === name))?.state ?? null;
}

export function featureKey(
  { dataKey }: { dataKey: { readonly value: string } },
  { feature, prompt, sae, state }: Chosen,
): string {
  return JSON.stringify([dataKey.value, feature, prompt, sae, state]);
}
