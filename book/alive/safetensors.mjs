// Reads weights as they ship: a safetensors file in half precision.

/** The tensors of a file, by name: their shapes, and their numbers as Float32Arrays. */
export function readSafetensors(buffer) {
  const size = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
  const single = singlePrecision(), tensors = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (entry.dtype !== "F16") throw new Error(`${name} is ${entry.dtype}, not F16`);
    const [begin, end] = entry.data_offsets;
    const halves = new Uint16Array(buffer.slice(8 + size + begin, 8 + size + end));
    tensors[name] = { shape: entry.shape, data: Float32Array.from(halves, (h) => single[h]) };
  }
  return tensors;
}

/** The number that each of the 65,536 half-precision patterns stands for. */
function singlePrecision() {
  const table = new Float32Array(65_536);
  for (let bits = 0; bits < table.length; bits++) {
    const exponent = (bits >> 10) & 31, fraction = bits & 1023;
    let size = (1 + fraction / 1024) * 2 ** (exponent - 15);
    if (exponent === 0) size = fraction * 2 ** -24;
    if (exponent === 31) size = fraction ? NaN : Infinity;
    table[bits] = bits >> 15 ? -size : size;
  }
  return table;
}
