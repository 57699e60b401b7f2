// Buffers as tests/texts/messages.json has them: numbers, to be read.
import { toHalf } from "../dev/fake-kernel";

/** One list of numbers, by its type. */
export interface Numbers {
  float32?: (number | null)[];
  float16?: number[];
  int8?: number[];
  text?: string;
}

export function viewOf({ float32, float16, int8, text }: Numbers): DataView {
  const made = float32
    ? Float32Array.from(float32, (number) => number ?? NaN)
    : float16
      ? Uint16Array.from(float16, toHalf)
      : int8
        ? Int8Array.from(int8)
        : new TextEncoder().encode(text);
  return new DataView(made.buffer);
}
