// Decodes IEEE 754 half floats with a table of all 65,536 values: a 1024 × 1024 matrix takes a few milliseconds.
let table: Float32Array | null = null;

function build(): Float32Array {
  const values = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits += 1) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 0x1f;
    const fraction = bits & 0x3ff;
    if (exponent === 0) values[bits] = sign * fraction * 2 ** -24;
    else if (exponent === 31) values[bits] = fraction ? NaN : sign * Infinity;
    else values[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return values;
}

export function half(bits: number): number {
  table ??= build();
  return table[bits & 0xffff] ?? NaN;
}

export function halves(words: Uint16Array): Float32Array {
  const out = new Float32Array(words.length);
  const values = (table ??= build());
  for (let i = 0; i < words.length; i += 1) out[i] = values[words[i] ?? 0] ?? NaN;
  return out;
}
