// The activations of the chosen feature of an SAE, one for each token.
import type { FeatureTokensReply, ReadFeatureTokens } from "../wire/protocol.gen";

export interface FeatureTokens {
  /** The key, from `featureKey`, of the selection that the values belong to. */
  key: string;
  reply: FeatureTokensReply;
  /** [position]; NaN at padding. */
  values: Float32Array;
}

type Chosen = { feature: number | null } & Pick<ReadFeatureTokens, "prompt" | "sae">;

export function featureKey(
  { dataKey }: { dataKey: { readonly value: string } },
  { feature, prompt, sae }: Chosen,
): string {
  return JSON.stringify([dataKey.value, feature, prompt, sae]);
}
