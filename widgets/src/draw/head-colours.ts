// Colours that distinguish heads: the palette of Okabe and Ito, which colour-blind readers can tell apart. Its black is
// the theme's text colour here.
const OKABE_ITO = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "var(--rs-ink)", "#f0e442"];

export function headColour(index: number): string {
  return OKABE_ITO[index % OKABE_ITO.length] ?? "var(--rs-ink)";
}
