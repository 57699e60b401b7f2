// Exports pictures of any kind, for the tests. A picture is plain data.

import { HEADS, LAYERS, LENS, RANKING } from "../src/export/charts";
import type { Table } from "../src/export/csv";
import { type PictureKind, type Setting, type ShownPicture, shownAs } from "../src/export/pictures";
import { shownPictures } from "../src/export/shown-pictures";
import type { Store, Tab } from "../src/state/store";
import { ATTENTION } from "../src/views/attention/attention-export";
import { FEATURES } from "../src/views/features/features-export";
import { POSITIONS } from "../src/views/positions/positions-export";
import { PROMPTS } from "../src/views/prompts/prompts-export";
import { ATTENTION_OF_RUNS } from "../src/views/runs/run-attention-export";
import { RUNS } from "../src/views/runs/runs-export";
import { STREAM } from "../src/views/runs/stream-export";
import { SEGMENT_MAP } from "../src/views/segments/segments-export";
import { TOKEN_LENS } from "../src/views/token-lens/token-lens-export";
import { WHY } from "../src/views/why/why-export";

/** The views below the charts. */
const OFFERED = {
  attention: ATTENTION,
  positions: POSITIONS,
  "token-lens": TOKEN_LENS,
  prompts: PROMPTS,
  why: WHY,
  runs: RUNS,
  segments: SEGMENT_MAP,
  features: FEATURES,
} satisfies Record<Tab, object>;
/** The parts of the tab "Runs", which offers one of them at a time. */
const PARTS = { "attention-of-runs": ATTENTION_OF_RUNS, stream: STREAM };
const KINDS = { lens: LENS, layers: LAYERS, heads: HEADS, ranking: RANKING, ...OFFERED, ...PARTS };
type Data<K> = K extends PictureKind<infer P> ? P : never;
export type Offers = { [K in keyof typeof OFFERED]: Data<(typeof OFFERED)[K]> };
export type Picture = { [K in keyof typeof KINDS]: Data<(typeof KINDS)[K]> }[keyof typeof KINDS];

export function exported<P extends Picture>(picture: P): ShownPicture {
  // SAFETY: the kind has the name of its pictures, so it takes this one.
  return shownAs(KINDS[picture.picture] as unknown as PictureKind<P>, picture);
}

export const tableOf = (picture: Picture, setting: Setting): Table => exported(picture).table(setting);
export const figure = (picture: Picture, setting: Setting): string => exported(picture).figure(setting);

/** The data of the pictures on screen. */
export const picturesOf = (store: Store): Picture[] => shownPictures(store).map(({ picture }) => picture as Picture);
