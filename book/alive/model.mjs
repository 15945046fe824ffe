// The Transformer (§3, Figure 1): the package's model, in the same parts and names.
//
// Every step can be watched: `see(name, data, shape)` is called with each tensor as it
// comes, under the name of the module that made it. A watcher that keeps a tensor copies
// it; one that changes its numbers changes what the model does next.

import { add, layerNorm, linear, relu, sinusoids } from "./arithmetic.mjs";

const unseen = () => {};

export class Transformer {
  /** A model with the settings and the weights of the package's files. */
  constructor(config, tensors) {
    const fits =
      config.norm === "pre" && config.positions === "sinusoidal" &&
      config.activation === "relu" && !config.tgt_vocab_size && !config.d_k && !config.d_v;
    if (!fits) throw new Error("this engine runs models like the one that ships, no others");
    this.config = config;
    this.tensors = tensors;
    this.table = sinusoids(config.max_length + 64, config.d_model);
    this.embeddings = tensors["src_embeddings.weight"];
    this.size = config.d_model / config.n_heads; // of one head
    this.attentions = {};
    for (const name of Object.keys(tensors)) {
      if (name.endsWith("query_key_value.weight")) this.splitPacked(name);
    }
  }

  /** W^Q, W^K and W^V lie in one packed matrix, in this order. */
  splitPacked(name) {
    const { data } = this.tensors[name], d = this.config.d_model, size = d * d;
    const part = (i) => ({ shape: [d, d], data: data.subarray(i * size, (i + 1) * size) });
    const owner = name.slice(0, -".query_key_value.weight".length);
    this.attentions[owner] = { query: part(0), key: part(1), value: part(2) };
  }

  /** Tokens plus positions (§3.4, §3.5). */
  embed(ids, positions, see, side) {
    const d = this.config.d_model, n = ids.length, scale = Math.sqrt(d);
    const x = new Float32Array(n * d), waves = new Float32Array(n * d);
    ids.forEach((id, row) => {
      for (let i = 0; i < d; i++) x[row * d + i] = this.embeddings.data[id * d + i] * scale;
      const from = positions[row] * d;
      waves.set(this.table.subarray(from, from + d), row * d);
    });
    see(`${side}.embeddings`, x, [n, d]);
    see(`${side}.positions`, waves, [n, d]);
    add(x, waves);
    see(`${side}.input`, x, [n, d]);
    return x;
  }

  /** Read the source: one vector per token, informed by all the others (§3). */
  encode(src, see = unseen) {
    let x = this.embed(src, src.map((_, i) => i), see, "encoder");
    const everywhere = src.map(() => src.map((_, i) => i));
    for (let layer = 0; layer < this.config.n_layers; layer++) {
      const name = `encoder.layers.${layer}`;
      x = this.residual(x, `${name}.residuals.0`, see, (y) => {
        const part = `${name}.self_attention`;
        const store = this.keysAndValues(y, part, see);
        return this.attend(y, store, everywhere, part, see);
      });
      x = this.residual(x, `${name}.residuals.1`, see, (y) => this.feedForward(y, name, see));
    }
    return this.norm(x, "encoder.norm", see);
  }

  /** What decoding keeps from step to step: keys and values, computed once. */
  start(src, see = unseen) {
    const memory = this.encode(src, see), layers = [];
    for (let layer = 0; layer < this.config.n_layers; layer++) {
      const cross = `decoder.layers.${layer}.cross_attention`;
      layers.push({
        self: { key: new Float32Array(0), value: new Float32Array(0) },
        cross: this.keysAndValues(memory, cross, see),
      });
    }
    return { layers, src, length: 0 };
  }

  /**
   * Logits after some more tokens, each at its position. The new keys join the cache;
   * `past[i]` lists the places in it that token i may look at, its own included.
   */
  step(ids, positions, cache, past, see = unseen) {
    let x = this.embed(ids, positions, see, "decoder");
    const n = ids.length, d = this.config.d_model;
    const memory = cache.src.map((_, i) => i), everywhere = ids.map(() => memory);
    cache.layers.forEach(({ self, cross }, layer) => {
      const name = `decoder.layers.${layer}`;
      x = this.residual(x, `${name}.residuals.0`, see, (y) => {
        const part = `${name}.self_attention`;
        const { key, value } = this.keysAndValues(y, part, see);
        extend(self, "key", key, cache.length * d);
        extend(self, "value", value, cache.length * d);
        return this.attend(y, self, past, part, see, cache.length + n);
      });
      x = this.residual(x, `${name}.residuals.1`, see, (y) =>
        this.attend(y, cross, everywhere, `${name}.cross_attention`, see));
      x = this.residual(x, `${name}.residuals.2`, see, (y) => this.feedForward(y, name, see));
    });
    cache.length += n;
    const logits = linear(this.norm(x, "decoder.norm", see), this.embeddings); // tied (§3.4)
    see("logits", logits, [n, this.config.vocab_size]);
    return logits;
  }

  /** Logits of the next token after each target token, all at once. */
  forward(src, tgt, see = unseen) {
    const positions = tgt.map((_, i) => i);
    const past = positions.map((i) => positions.slice(0, i + 1)); // causal (§3.2.3)
    return this.step(tgt, positions, this.start(src, see), past, see);
  }

  /** x + Sublayer(LayerNorm(x)). */
  residual(x, name, see, sublayer) {
    const result = add(sublayer(this.norm(x, `${name}.norm`, see)), x);
    see(name, result, [x.length / this.config.d_model, this.config.d_model]);
    return result;
  }

  norm(x, name, see) {
    const result = layerNorm(x, this.tensors[`${name}.weight`], this.tensors[`${name}.bias`]);
    see(name, result, [x.length / this.config.d_model, this.config.d_model]);
    return result;
  }

  /** Widen, apply max(0, x), narrow again, for each position alone (§3.3, Eq. 2). */
  feedForward(x, layer, see) {
    const name = `${layer}.feed_forward`, t = this.tensors;
    const { d_model: d, d_ff: wide } = this.config, n = x.length / d;
    const hidden = linear(x, t[`${name}.widen.weight`], t[`${name}.widen.bias`]);
    see(`${name}.widen`, hidden, [n, wide]);
    see(`${name}.activation`, relu(hidden), [n, wide]);
    const result = linear(hidden, t[`${name}.narrow.weight`], t[`${name}.narrow.bias`]);
    see(name, result, [n, d]);
    return result;
  }

  keysAndValues(x, name, see) {
    const weights = this.attentions[name], shape = [x.length / this.config.d_model, this.config.d_model];
    const key = linear(x, weights.key), value = linear(x, weights.value);
    see(`${name}.key`, key, shape);
    see(`${name}.value`, value, shape);
    return { key, value };
  }

  /**
   * Several heads of Eq. 1 (§3.2): row i of x asks the keys in `looks[i]`. Scores that
   * the mask hides are computed for a watcher alone; `mask` is 1 where a row may look.
   */
  attend(x, { key, value }, looks, name, see, n_keys = key.length / this.config.d_model) {
    const { d_model: d, n_heads: heads } = this.config, size = this.size;
    const n = x.length / d, scale = 1 / Math.sqrt(size), watched = see !== unseen;
    const query = linear(x, this.attentions[name].query);
    see(`${name}.query`, query, [n, d]);
    const weights = new Float32Array(heads * n * n_keys);
    const scores = watched ? new Float32Array(weights.length) : null;
    for (let head = 0; head < heads; head++) {
      for (let row = 0; row < n; row++) {
        const start = (head * n + row) * n_keys, at = row * d + head * size;
        const dot = (j) => {
          let sum = 0;
          for (let i = 0, to = j * d + head * size; i < size; i++) sum += query[at + i] * key[to + i];
          return sum * scale;
        };
        if (scores) for (let j = 0; j < n_keys; j++) scores[start + j] = dot(j);
        softmax(looks[row], dot, weights, start);
      }
    }
    if (watched) {
      const mask = new Float32Array(n * n_keys);
      looks.forEach((places, row) => places.forEach((j) => { mask[row * n_keys + j] = 1; }));
      see(`${name}.scores`, scores, [heads, n, n_keys]);
      see(`${name}.mask`, mask, [n, n_keys]);
      see(`${name}.weights`, weights, [heads, n, n_keys]);
    }
    const mixed = new Float32Array(n * d); // the heads' outputs, side by side
    for (let head = 0; head < heads; head++) {
      for (let row = 0; row < n; row++) {
        const start = (head * n + row) * n_keys, to = row * d + head * size;
        for (const j of looks[row]) {
          const weight = weights[start + j], from = j * d + head * size;
          for (let i = 0; i < size; i++) mixed[to + i] += weight * value[from + i];
        }
      }
    }
    see(`${name}.heads`, mixed, [n, d]);
    const result = linear(mixed, this.tensors[`${name}.output.weight`]);
    see(name, result, [n, d]);
    return result;
  }
}

/** The softmax of the scores at some places, written into `weights` from `start` on. */
function softmax(places, score, weights, start) {
  let highest = -Infinity, sum = 0;
  for (const j of places) {
    const value = score(j);
    weights[start + j] = value;
    if (value > highest) highest = value;
  }
  for (const j of places) sum += weights[start + j] = Math.exp(weights[start + j] - highest);
  for (const j of places) weights[start + j] /= sum;
}

/** Write new rows behind the `used` numbers of a store, which grows by doubling. */
function extend(store, name, rows, used) {
  if (store[name].length < used + rows.length) {
    const larger = new Float32Array(2 * (used + rows.length));
    larger.set(store[name].subarray(0, used));
    store[name] = larger;
  }
  store[name].set(rows, used);
}
