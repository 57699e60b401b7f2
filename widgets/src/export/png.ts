// A figure as a PNG. The browser draws it onto a canvas. The figure loads nothing from elsewhere, so the page may read
// the canvas.
const DPI = 600;
const MOST_PIXELS = 16_000_000;

/** The size in pixels of a figure given in points: 600 dpi, or less if this would be too many pixels. */
export function pixelSize(width: number, height: number): { width: number; height: number } {
  const scale = Math.min(DPI / 72, Math.sqrt(MOST_PIXELS / (width * height)));
  return { width: Math.floor(width * scale), height: Math.floor(height * scale) };
}

export async function png(svg: string): Promise<Blob> {
  const [, , width = 1, height = 1] = (/viewBox="([^"]+)"/.exec(svg)?.[1] ?? "").split(" ").map(Number);
  const size = pixelSize(width, height);
  const image = new Image();
  // A data URL, not a blob URL: in Safari a canvas cannot be read after an SVG from a blob was drawn on it.
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(
    svg.replace(/width="[^"]+mm" height="[^"]+mm"/, `width="${size.width}" ` + `height="${size.height}"`),
  )}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = size.width;
  canvas.height = size.height;
  const pen = canvas.getContext("2d");
  if (!pen) throw new Error("This browser cannot draw on a canvas. Save the figure as SVG instead.");
  pen.drawImage(image, 0, 0, size.width, size.height);
  const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
  if (!blob) throw new Error("The picture is too large for this browser. Save it as SVG instead.");
  return new Blob([withResolution(new Uint8Array(await blob.arrayBuffer()), size.width / (width / 72))], {
    type: blob.type,
  });
}

const HEADER = 8 + 25; // the signature, and the chunk that comes first in every PNG

/** The PNG with its resolution added. Without it, a word processor takes each pixel for a point (1/72 inch). */
export function withResolution(data: Uint8Array, dpi: number): Uint8Array<ArrayBuffer> {
  const chunk = new Uint8Array(4 + 4 + 9 + 4);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, 9);
  chunk.set(
    [..."pHYs"].map((letter) => letter.charCodeAt(0)),
    4,
  );
  const perMetre = Math.round(dpi / 0.0254);
  view.setUint32(8, perMetre);
  view.setUint32(12, perMetre);
  chunk[16] = 1; // the metre
  view.setUint32(17, crc(chunk.subarray(4, 17)));
  const all = new Uint8Array(data.length + chunk.length);
  all.set(data.subarray(0, HEADER));
  all.set(chunk, HEADER);
  all.set(data.subarray(HEADER), HEADER + chunk.length);
  return all;
}

/** The checksum of a PNG’s chunk (ISO 3309). */
function crc(bytes: Uint8Array): number {
  let sum = 0xffffffff;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit += 1) sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1;
  }
  return (sum ^ 0xffffffff) >>> 0;
}
