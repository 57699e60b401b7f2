// Colours that distinguish heads: the palette of Okabe and Ito, safe for colour-blind readers. The theme's ink is
// black.
const OKABE_ITO = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "var(--rs-ink)", "#f0e442"];

export function headColour(index: number): string {
  return OKABE_ITO[index % OKABE_ITO.length] ?? "var(--rs-ink)";
}
