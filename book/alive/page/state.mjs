// What the page shows, as an address: "#box=decoder.cross&layer=1&head=1&step=8".

export const SENTENCE = "Eine Frau wartet, während ein Mann ein altes Auto repariert.";

export const FIRST = "#box=decoder.cross&layer=1&head=1&step=8"; // where a visit begins
const LONGEST = 1_000; // characters of a text that stand in an address

const number = (from, to, whole = true) => (text) => {
  const value = Number(text);
  if (!text.trim() || !(value >= from && value <= to)) return undefined;
  return whole && !Number.isInteger(value) ? undefined : value;
};
const one = (...of) => (text) => (of.includes(text) ? text : undefined);
const name = (text) => (/^[\w.]{1,60}$/.test(text) ? text : undefined);

// Each name with its default and with what reads it; what does not fit is the default.
const FIELDS = {
  text: [SENTENCE, (text) => text.slice(0, LONGEST)],
  box: [null, name],
  layer: [0, number(0, 20)],
  head: [0, number(0, 20)],
  step: [0, number(0, 1_000)], // which token the decoder is about to write
  token: [0, number(0, 1_000)], // which token the encoder's boxes show
  row: [null, number(0, 1_000)], // the cell of a map whose numbers are shown
  col: [null, number(0, 1_000)],
  at: [null, one("play")], // which part of the page to scroll to
  show: ["weights", one("weights", "scores", "mask")],
  search: ["beam", one("beam", "greedy", "sample")],
  width: [4, number(1, 5)],
  alpha: [null, number(0, 2, false)], // null: the model's own
  temperature: [1, number(0.1, 2, false)],
  topk: [0, number(0, 50)], // 0: all
  seed: [1, number(0, 1e6)],
  off: [[], (text) => text.split(",").filter(name)],
  positions: [1, number(0, 1)],
  mask: [1, number(0, 1)],
};

/** The state that the page starts with. */
export function defaults() {
  return Object.fromEntries(Object.entries(FIELDS).map(([key, [value]]) => [key, value]));
}

/** The state of an address. */
export function read(hash) {
  const state = defaults();
  for (const [key, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
    const value = Object.hasOwn(FIELDS, key) ? FIELDS[key][1](text) : undefined;
    if (value !== undefined) state[key] = value;
  }
  return state;
}

/**
 * A state as far as a run reaches: its step and piece within the sentence, its layer and
 * head within the model. The state itself keeps them: the next sentence may be longer.
 */
export function fit(state, { src, next }, { n_layers: layers, n_heads: heads }) {
  const counts = { step: next.length, token: src.length, layer: layers, head: heads };
  const within = Object.entries(counts).map(([key, count]) => [key, Math.min(state[key], count - 1)]);
  return { ...state, ...Object.fromEntries(within) };
}

/** The address of a state: what differs from the start. */
export function write(state) {
  const start = defaults(), parts = new URLSearchParams();
  for (const key of Object.keys(FIELDS)) {
    if (String(state[key]) !== String(start[key])) parts.set(key, String(state[key]).slice(0, LONGEST));
  }
  return parts.size ? `#${parts}` : "#";
}

/** What of a state needs the model to run again. */
export function question(state) {
  const { text, search: kind, width, alpha, temperature, topk, seed } = state;
  const search = { kind };
  if (kind === "beam") Object.assign(search, { width, ...(alpha === null ? {} : { alpha }) });
  if (kind === "sample") Object.assign(search, { temperature, topK: topk || null, seed });
  const { off, positions, mask } = state;
  return { text, search, changes: { off, positions: !!positions, mask: !!mask } };
}
