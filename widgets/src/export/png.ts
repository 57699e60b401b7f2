// A figure as pixels: drawn by the browser onto a canvas, which nothing from elsewhere taints.
const DPI = 600;
const MOST_PIXELS = 16_000_000;

/** How many pixels a figure of so many points has: 600 dpi, less where that were too many. */
export function pixelSize(width: number, height: number): { width: number; height: number } {
  const scale = Math.min(DPI / 72, Math.sqrt(MOST_PIXELS / (width * height)));
  return { width: Math.floor(width * scale), height: Math.floor(height * scale) };
}

export async function png(svg: string): Promise<Blob> {
  const [, , width = 1, height = 1] = (/viewBox="([^"]+)"/.exec(svg)?.[1] ?? "").split(" ").map(Number);
  const size = pixelSize(width, height);
  const image = new Image();
  // A data address, not a blob's: Safari taints a canvas that a blob's SVG was drawn on.
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg.replace(/width="[^"]+mm" height="[^"]+mm"/, `width="${size.width}" height="${size.height}"`))}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = size.width;
  canvas.height = size.height;
  const pen = canvas.getContext("2d");
  if (!pen) throw new Error("This browser draws on no canvas; take the SVG instead.");
  pen.drawImage(image, 0, 0, size.width, size.height);
  const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
  if (!blob) throw new Error("The picture is too large for this browser; take the SVG instead.");
  return blob;
}
