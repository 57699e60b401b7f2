// A head in a sentence: its score where one colours the map, what it adds, and how that spreads over the prompts.
import { parseHead, signed } from "../format";
import type { Sentence, Store } from "../store";
import { cellWords, type MapPicture, valueIn } from "./map-picture";
import { headSpread, overPrompts } from "./spread";

export function headSentence(store: Store, picture: MapPicture | null): Sentence | null {
  const name = store.hoveredHead.value;
  const head = name === null ? null : parseHead(name);
  if (name === null || !head) return null;
  if (store.isAbsent(name)) return [`${name}: layer ${head.layer} has no attention heads`];
  const value = store.headValue(name);
  const scored = picture !== null && picture.score !== null;
  const what = scored
    ? `${name}: ${cellWords(picture, valueIn(picture, name, store.facts.value?.heads ?? 0))}`
    : `${name}: head ${head.head} of layer ${head.layer}`;
  const meaning = scored ? ` · ${picture.meaning.replace(/^[\w-]+ score: /, "").replaceAll("`", "")}` : ""; // the score is named already
  if (value === null) return [what + meaning];
  const adds = value < 0 ? "takes" : "adds";
  return [
    scored ? `${what}; ${adds} ` : `${what} ${adds} `, { stress: signed(value), sign: value },
    `${overPrompts(headSpread(store, name))} ${value < 0 ? "from" : "to"} the ${store.quantity.value}${meaning}`,
    scored ? "" : ` · click to ${store.heads.value.includes(name) ? "let go" : "keep it"}`,
  ];
}
