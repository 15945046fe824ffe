// The tour: what its steps say is in the page; here are the numbers beside them.
//
// Each measure reads one pass over the prepared sentence, the search of the model's own
// settings. The tests ask the same functions whether the tour's words are true.

import { logSoftmax } from "../arithmetic.mjs";
import { best, digits, label, listed, percent } from "./words.mjs";

const bare = ({ piece }) => label(piece);

/** The place of a word's piece; the last one, if there are some. */
export function placeOf(tokens, word) {
  return tokens.findLastIndex((token) => bare(token) === word);
}

/** The weights of a row of one head. */
export function rowOf({ tensors }, name, head, row) {
  const { data, shape: [, rows, columns] } = tensors[`${name}.weights`], from = (head * rows + row) * columns;
  return data.subarray(from, from + columns);
}

const size = (vector) => Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));
const rowsOf = ({ data, shape }) => Array.from({ length: shape[0] }, (_, i) => data.subarray(i * shape[1], (i + 1) * shape[1]));

/** "“Auto” looks at “alt”: 99 %." */
function looks(run, { name, head, row, rows, columns }) {
  const weights = rowOf(run, name, head, row), j = best(weights);
  return `“${bare(rows[row])}” looks most at “${bare(columns[j])}”: ${percent(weights[j])}.`;
}

export const MEASURES = {
  pieces: ({ src }) => `Here: ${src.length} pieces, ${src.map(({ piece }) => piece).join(" ")}.`,
  positions: ({ tensors }) => {
    const length = (name) => {
      const sizes = rowsOf(tensors[name]).map(size);
      return digits(sizes.reduce((a, b) => a + b, 0) / sizes.length, 1);
    };
    return `Here: the embeddings are ${length("encoder.embeddings")} long on average, the waves ${length("encoder.positions")}.`;
  },
  adjective: (run) => `Here: ${looks(run, {
    name: "encoder.layers.2.self_attention", head: 1, row: placeOf(run.src, "Auto"), rows: run.src, columns: run.src,
  })}`,
  residual: ({ tensors, src }) => {
    const i = placeOf(src, "repariert"), long = (name) => digits(size(rowsOf(tensors[name])[i]), 1);
    return `Here: “repariert” is ${long("encoder.input")} long as it enters, and ` +
      `${listed([0, 1, 2].map((l) => long(`encoder.layers.${l}.residuals.1`)))} after layers 0, 1 and 2.`;
  },
  sparse: ({ tensors }) => {
    const shares = [0, 1, 2].map((l) => {
      const { data } = tensors[`encoder.layers.${l}.feed_forward.activation`];
      return percent(data.filter((x) => x > 0).length / data.length);
    });
    return `Here: ${listed(shares)} of the units are above zero, in layers 0, 1 and 2 of the encoder.`;
  },
  subject: (run) => `Here: ${looks(run, {
    name: "decoder.layers.2.self_attention", head: 4, row: placeOf(run.tgt, "is"), rows: run.tgt, columns: run.tgt,
  })}`,
  verb: (run) => `Here, head 1 of layer 1, before “${bare(run.next[placeOf(run.tgt, "is")])}” is written: ${looks(run, {
    name: "decoder.layers.1.cross_attention", head: 1, row: placeOf(run.tgt, "is"), rows: run.tgt, columns: run.src,
  })}`,
  likeliest: ({ tensors, tgt, next }, { pieces }) => {
    const row = placeOf(tgt, "is"), logits = rowsOf(tensors.logits)[row].slice();
    logits[0] = logits[1] = -Infinity;
    const p = logSoftmax(logits).map(Math.exp), order = [...p.keys()].sort((a, b) => p[b] - p[a]).slice(0, 3);
    return `Here: ${listed(order.map((id) => `“${label(pieces[id] ?? "?")}” ${percent(p[id])}`))}; ` +
      `“${bare(next[row])}” is written.`;
  },
  search: ({ translation }, { greedy, flat }) =>
    `Here: greedy writes “${greedy}” The beam writes “${translation}” Without the penalty, it writes “${flat}”`,
  changed: ({ translation }, { changed }) => `Here: “${translation}” becomes “${changed}”`,
};
