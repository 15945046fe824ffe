// The arithmetic of the model, on plain Float32Arrays. A matrix is stored row by row.

const BATCH = 4; // rows of x, or of the weights, that share one pass over the other

/** x @ weight.T + bias: each row of x against each row of the weights. */
export function linear(x, weight, bias = null) {
  const nOut = weight.shape[0], nIn = weight.shape[1], w = weight.data;
  const rows = x.length / nIn;
  const result = new Float32Array(rows * nOut);
  let row = 0;
  for (; row + BATCH <= rows; row += BATCH) fourRows(x, row, w, nIn, nOut, result);
  for (; row < rows; row++) oneRow(x, row, w, nIn, nOut, result);
  if (bias) {
    const b = bias.data;
    for (let start = 0; start < result.length; start += nOut) {
      for (let i = 0; i < nOut; i++) result[start + i] += b[i];
    }
  }
  return result;
}

function oneRow(x, row, w, nIn, nOut, result) {
  const from = row * nIn, to = row * nOut;
  let out = 0;
  for (; out + BATCH <= nOut; out += BATCH) {
    const w0 = out * nIn, w1 = w0 + nIn, w2 = w1 + nIn, w3 = w2 + nIn;
    let a = 0, b = 0, c = 0, d = 0;
    for (let i = 0; i < nIn; i++) {
      const value = x[from + i];
      a += value * w[w0 + i];
      b += value * w[w1 + i];
      c += value * w[w2 + i];
      d += value * w[w3 + i];
    }
    result[to + out] = a;
    result[to + out + 1] = b;
    result[to + out + 2] = c;
    result[to + out + 3] = d;
  }
  for (; out < nOut; out++) {
    let sum = 0;
    for (let i = 0; i < nIn; i++) sum += x[from + i] * w[out * nIn + i];
    result[to + out] = sum;
  }
}

function fourRows(x, row, w, nIn, nOut, result) {
  const x0 = row * nIn, x1 = x0 + nIn, x2 = x1 + nIn, x3 = x2 + nIn, to = row * nOut;
  for (let out = 0; out < nOut; out++) {
    const from = out * nIn;
    let a = 0, b = 0, c = 0, d = 0;
    for (let i = 0; i < nIn; i++) {
      const value = w[from + i];
      a += value * x[x0 + i];
      b += value * x[x1 + i];
      c += value * x[x2 + i];
      d += value * x[x3 + i];
    }
    result[to + out] = a;
    result[to + nOut + out] = b;
    result[to + 2 * nOut + out] = c;
    result[to + 3 * nOut + out] = d;
  }
}

/** Each row with mean 0 and variance 1, then a learned scale and shift (§3.1). */
export function layerNorm(x, gain, bias) {
  const width = gain.shape[0], result = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += width) {
    let mean = 0, variance = 0;
    for (let i = 0; i < width; i++) mean += x[start + i] / width;
    for (let i = 0; i < width; i++) variance += (x[start + i] - mean) ** 2 / width;
    const scale = 1 / Math.sqrt(variance + 1e-5);
    for (let i = 0; i < width; i++) {
      result[start + i] = gain.data[i] * (x[start + i] - mean) * scale + bias.data[i];
    }
  }
  return result;
}

/** x + y, in x. */
export function add(x, y) {
  for (let i = 0; i < x.length; i++) x[i] += y[i];
  return x;
}

/** max(0, x), in x. */
export function relu(x) {
  for (let i = 0; i < x.length; i++) if (x[i] < 0) x[i] = 0;
  return x;
}

/** The logarithm of the softmax, of one row of logits. */
export function logSoftmax(logits) {
  let highest = -Infinity, sum = 0;
  for (const value of logits) if (value > highest) highest = value;
  for (const value of logits) sum += Math.exp(value - highest);
  const norm = highest + Math.log(sum);
  return logits.map((value) => value - norm);
}

/** The places of the k highest values, the highest first. */
export function topK(values, k) {
  const best = [];
  for (let i = 0; i < values.length; i++) {
    if (best.length === k && values[i] <= values[best[k - 1]]) continue;
    let place = best.length;
    while (place > 0 && values[i] > values[best[place - 1]]) place--;
    best.splice(place, 0, i);
    if (best.length > k) best.pop();
  }
  return best;
}

/** Sines in the even columns, cosines in the odd ones, ever longer waves (§3.5). */
export function sinusoids(length, width) {
  const table = new Float32Array(length * width);
  for (let position = 0; position < length; position++) {
    for (let column = 0; column < width; column += 2) {
      const angle = position / 10_000 ** (column / width);
      table[position * width + column] = Math.sin(angle);
      table[position * width + column + 1] = Math.cos(angle);
    }
  }
  return table;
}
