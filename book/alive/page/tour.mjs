// The tour: what its steps say is in the page; here are the numbers beside them.
//
// Each measure reads one pass over the prepared sentence, the search of the model's own
// settings. The tests ask the same functions whether the tour's words are true.

import { logSoftmax } from "../arithmetic.mjs";
import { SENTENCE } from "./state.mjs";
import { best, digits, label, listed, percent } from "./words.mjs";

const bare = ({ piece }) => label(piece);
const CROSS = "decoder.layers.1.cross_attention";

/** What the measures ask besides the sentence itself: more runs, by name. */
export const QUESTIONS = {
  greedy: { search: { kind: "greedy" } },
  flat: { search: { alpha: 0 } },
  unordered: { changes: { positions: false } },
  without: { changes: { off: [`${CROSS}.head.1`] } },
  washes: { text: SENTENCE.replace("repariert", "wäscht") },
};

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

/** How likely a row finds the piece that it writes. */
function chance({ tensors, next }, row) {
  const logits = rowsOf(tensors.logits)[row].slice();
  logits[0] = logits[1] = -Infinity;
  return Math.exp(logSoftmax(logits)[next[row].id]);
}

/** How many heads of the cross-attention look most at a column, and of how many. */
function heads({ tensors }, row, column) {
  const names = Object.keys(tensors).filter((name) => name.endsWith("cross_attention.weights"));
  const places = names.flatMap((name) => Array.from({ length: tensors[name].shape[0] }, (_, head) =>
    best(rowOf({ tensors }, name.replace(/\.weights$/, ""), head, row))));
  return { count: places.filter((place) => place === column).length, of: places.length };
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
    const shares = (stack) => listed([0, 1, 2].map((l) => {
      const { data } = tensors[`${stack}.layers.${l}.feed_forward.activation`];
      return percent(data.filter((x) => x > 0).length / data.length);
    }));
    return `Here: ${shares("encoder")} of the units are above zero, in layers 0, 1 and 2 of the encoder; ` +
      `${shares("decoder")} in those of the decoder.`;
  },
  subject: (run) => `Here: ${looks(run, {
    name: "decoder.layers.2.self_attention", head: 4, row: placeOf(run.tgt, "is"), rows: run.tgt, columns: run.tgt,
  })}`,
  verb: (run, { without, washes }) => {
    const row = placeOf(run.tgt, "is"), verb = bare(run.next[row]);
    const { count, of } = heads(run, row, placeOf(run.src, "repariert")), [before, after] = [chance(run, row), chance(without, row)];
    const rest = without.translation === run.translation
      ? `the translation stays the same, and “${verb}” ${after > before ? "rises" : "falls"} from ${percent(before)} to ${percent(after)}`
      : `the model writes “${without.translation}”`;
    return `Here: ${looks(run, { name: CROSS, head: 1, row, rows: run.tgt, columns: run.src })} ` +
      `${count} of the ${of} heads of the cross-attention look most at it. Without this one, ${rest}. ` +
      `With “wäscht” for “repariert”, the model writes “${washes.translation}”`;
  },
  likeliest: ({ tensors, tgt, next }, { pieces }) => {
    const row = placeOf(tgt, "is"), logits = rowsOf(tensors.logits)[row].slice();
    logits[0] = logits[1] = -Infinity; // padding and the start are never written
    const p = logSoftmax(logits).map(Math.exp), order = [...p.keys()].sort((a, b) => p[b] - p[a]).slice(0, 3);
    return `Here: ${listed(order.map((id) => `“${label(pieces[id] ?? "?")}” ${percent(p[id])}`))}; ` +
      `“${bare(next[row])}” is written.`;
  },
  search: ({ translation }, { greedy, flat }) =>
    `Here: greedy writes “${greedy.translation}” The beam writes “${translation}” Without the penalty, it writes “${flat.translation}”`,
  unordered: ({ translation }, { unordered }) => `Here: “${translation}” becomes “${unordered.translation}”`,
};
