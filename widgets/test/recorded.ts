// The buffers in tests/texts/messages.json, which are written as readable numbers.

/** One list of numbers, by its type. */
export interface Numbers {
  float32?: (number | null)[];
  int8?: number[];
  text?: string;
}

export function viewOf({ float32, int8, text }: Numbers): DataView {
  const made = float32
    ? Float32Array.from(float32, (number) => number ?? NaN)
    : int8
      ? Int8Array.from(int8)
      : new TextEncoder().encode(text);
  return new DataView(made.buffer);
}
