// One sentence through the model, as the page shows it: every tensor, what the search
// kept, and what a reader may change on the way.
//
// A change is a watcher that writes zeros: over a head's output, over the output of a
// sub-layer (the residual stream then goes past it), or over the positions.

import { beamSearch, greedySearch, lengthPenalty, sample } from "./search.mjs";
import { BOS, EOS } from "./tokenizer.mjs";

const HEAD = /^(.*_attention)\.head\.(\d+)$/; // "decoder.layers.2.cross_attention.head.3"

/** A watcher that switches off what `off` names, and the positions if they are not wanted. */
export function switches(model, { off = [], positions = true } = {}) {
  const { d_model: d } = model.config, size = model.size, heads = {}, whole = new Set();
  for (const name of off) {
    const head = HEAD.exec(name);
    if (head) (heads[`${head[1]}.heads`] ??= []).push(Number(head[2]));
    else whole.add(name);
  }
  return (name, data) => {
    if (whole.has(name) || (!positions && name.endsWith(".positions"))) data.fill(0);
    for (const head of heads[name] ?? []) {
      for (let at = head * size; at < data.length; at += d) data.fill(0, at, at + size);
    }
  };
}

/** The model with a watcher at each of its steps: what a search needs of it, no more. */
export function watched(model, see) {
  return {
    config: model.config,
    start: (src) => model.start(src, see),
    step: (...of) => model.step(...of, see),
  };
}

/** Names of all sub-layers that can be switched off, in Figure 1's order. */
export function sublayers({ n_layers: layers }) {
  const parts = {
    encoder: ["self_attention", "feed_forward"],
    decoder: ["self_attention", "cross_attention", "feed_forward"],
  };
  return Object.entries(parts).flatMap(([stack, names]) =>
    Array.from({ length: layers }, (_, i) => i).flatMap((layer) =>
      names.map((name) => `${stack}.layers.${layer}.${name}`)));
}

/** Numbers from 0 up to 1, the same ones for the same seed. */
export function dice(seed) {
  let state = seed >>> 0;
  return () => { // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A search by its name: "greedy", "beam" or "sample". Returns ids, and a beam's tree. */
export function find(model, src, { kind = "beam", width = 4, alpha = 0.6, ...rest } = {}) {
  if (src.length === 1) return { output: [], tree: null }; // a blank sentence stays blank
  if (kind === "greedy") return { output: greedySearch(model, src), tree: null };
  if (kind === "sample") {
    const { temperature = 1, topK = null, seed = 1 } = rest;
    return { output: sample(model, src, { temperature, topK, random: dice(seed) }), tree: null };
  }
  const steps = [];
  const onStep = (step) => steps.push(step);
  const output = beamSearch(model, src, { beamSize: width, alpha, onStep });
  return { output, tree: grow(steps, output, alpha) };
}

/**
 * The tree of a beam search: a node for each candidate, after the one that it extends.
 * `parent` is a place in the list, or -1; `score` is what counts in the end (§6.1).
 */
function grow(steps, output, alpha) {
  const nodes = [], places = new Map([["", -1]]);
  steps.forEach(({ candidates, kept }, step) => {
    for (const candidate of candidates) {
      const { id, tokens, logProb } = candidate, key = tokens.join();
      places.set(key, nodes.length);
      nodes.push({
        step, id, logProb, parent: places.get(tokens.slice(0, -1).join()),
        kept: kept.includes(candidate), ended: id === EOS, best: false,
        score: logProb / lengthPenalty(step + 1, alpha),
      });
    }
  });
  let place = places.get([...output, EOS].join()) ?? places.get(output.join());
  for (; place >= 0; place = nodes[place].parent) nodes[place].best = true;
  return nodes;
}

/** Every tensor of one pass over a sentence and what has been written, by name. */
export function record(model, src, output, change, mask = true) {
  const tensors = {}, tgt = [BOS, ...output], places = tgt.map((_, i) => i);
  const see = (name, data, shape) => {
    change(name, data, shape);
    tensors[name] = { data: data.slice(), shape };
  };
  const looks = places.map((i) => (mask ? places.slice(0, i + 1) : places)); // §3.2.3
  model.step(tgt, places, model.start(src, see), looks, see);
  return tensors;
}

/**
 * All that the page shows of a text. `search` is what `find` takes; `changes` is what
 * `switches` takes, and `mask: false` adds a pass in which all rows see all columns.
 */
export function run(translator, { text, search = {}, changes = {} }) {
  const { model, tokenizer } = translator, src = translator.encode(text);
  const label = (id) => ({ id, piece: tokenizer.piece(id) });
  const options = { alpha: translator.alpha, ...search };
  const { off = [], positions = true, mask = true } = changes;
  const change = switches(model, { off, positions });
  const changed = off.length || !positions;
  const { output, tree } = find(changed ? watched(model, change) : model, src, options);
  const plain = changed ? find(model, src, options).output : output;
  const { kind = "beam", width = 4 } = search, own = kind === "beam" && width === 4 && options.alpha === translator.alpha;
  return {
    text,
    translation: tokenizer.decode(output),
    unchanged: tokenizer.decode(plain),
    usual: own ? null : tokenizer.decode(find(model, src, { alpha: translator.alpha }).output), // to compare a search with
    src: src.map(label),
    tgt: [BOS, ...output].map(label),
    next: [...output, EOS].map(label),
    tree: tree?.map((node) => ({ ...node, piece: tokenizer.piece(node.id) })) ?? null,
    tensors: record(model, src, output, change),
    open: mask ? null : record(model, src, output, change, false),
  };
}

/** Gain and bias of each norm, and what the page's first lines tell of the model. */
export function about(translator) {
  const { model, alpha } = translator, norms = {};
  for (const [name, { data }] of Object.entries(model.tensors)) {
    if (/norm\.(weight|bias)$/.test(name)) norms[name] = data;
  }
  return { config: model.config, alpha, norms, sublayers: sublayers(model.config) };
}

/** Some rows of the embedding matrix, which gives the logits, too (§3.4). */
export function embeddings({ model, tokenizer }, ids) {
  const { d_model: d } = model.config;
  return ids.map((id) => ({
    id, piece: tokenizer.piece(id), data: model.embeddings.data.slice(id * d, (id + 1) * d),
  }));
}
