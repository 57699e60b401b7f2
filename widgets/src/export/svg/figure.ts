// A picture as a figure: SVG text at print size, always in light colours.
import type { Picture, Setting } from "../pictures";
import { attentionFigure } from "./attention";
import { layersFigure, lensFigure } from "./curves";
import { headsFigure, rankingFigure } from "./heads";
import { positionsFigure, promptsFigure, tokenLensFigure } from "./maps";
import { scatterFigure } from "./scatter";
import { whyFigure } from "./why";

export function figure(picture: Picture, setting: Setting): string {
  switch (picture.picture) {
    case "lens":
      return lensFigure(picture, setting);
    case "layers":
      return layersFigure(picture, setting);
    case "heads":
      return headsFigure(picture, setting);
    case "ranking":
      return rankingFigure(picture, setting);
    case "attention":
      return attentionFigure(picture, setting);
    case "positions":
      return positionsFigure(picture, setting);
    case "token-lens":
      return tokenLensFigure(picture, setting);
    case "prompts":
      return promptsFigure(picture, setting);
    case "why":
      return whyFigure(picture, setting);
    case "runs":
      return scatterFigure(picture, setting);
  }
}
