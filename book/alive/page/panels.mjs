// What each box of Figure 1 opens to: the real tensors, of this sentence, at this step.

import { logSoftmax, topK } from "../arithmetic.mjs";
import { element } from "../dom.mjs";
import { distribution } from "../search.mjs";
import { attention } from "./attention.mjs";
import { tokenLabel, vectors } from "./maps.mjs";
import { parts } from "./view.mjs";
import { digits, label, percent, SPACE } from "./words.mjs";

const LIKELIEST = 10;

export const paragraph = (...words) => element("p", {}, words);

/** A table with a head; cells are text or elements. */
export function table(heads, rows, attributes = {}) {
  return element("div", { class: "scroll" }, element("table", { class: "numbers", ...attributes }, [
    element("thead", {}, element("tr", {}, heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, rows.map(([first, ...rest]) => element("tr", {}, [
      element("th", { scope: "row" }, first), ...rest.map((cell) => element("td", {}, cell)),
    ]))),
  ]));
}

const length = (vector) => Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));
const mean = (vector) => vector.reduce((sum, x) => sum + x, 0) / vector.length;
const deviation = (vector) => {
  const middle = mean(vector);
  return Math.sqrt(vector.reduce((sum, x) => sum + (x - middle) ** 2, 0) / vector.length);
};

/** All rows of a tensor as colors. */
function strips(view, stack, name, title, rest = {}) {
  const { shape } = view.run.tensors[name];
  return vectors({
    key: name, title, rows: view.rows(stack), at: (i) => view.row(name, i), columns: shape.at(-1),
    current: view.current(stack), ...rest,
  });
}

/** Some vectors of the current token, one above the other, on one scale. */
function together(view, key, title, named) {
  return vectors({
    key, title, rows: named.map(([name]) => ({ name })), at: (i) => named[i][1], columns: named[0][1].length,
  });
}

const here = (view, stack) => label(view.rows(stack)[view.current(stack)].piece);

function embeddings(view, { stack }) {
  const rows = view.rows(stack), name = `${stack}.embeddings`;
  return [
    paragraph(`${rows.length} ${rows.length === 1 ? "piece" : "pieces"}. The mark ${SPACE} is a space. Each id picks a row of one ` +
      `matrix of ${view.about.config.vocab_size.toLocaleString("en")} rows, the same for both languages.`),
    table(["piece", "with its space", "id"], rows.map((row) => [tokenLabel(row), element("code", {}, row.piece), String(row.id)])),
    strips(view, stack, name, `Embeddings, times √${view.d}`, { column: "dimension" }),
  ];
}

function positions(view, { stack }) {
  const i = view.current(stack), wave = (k) => {
    const even = k - (k % 2);
    return `${k % 2 ? "cos" : "sin"}(${i} / 10000^(${even}/${view.d}))`;
  };
  return [
    ...(view.state.positions ? [] : [paragraph("The positions are removed: zeros are added.")]),
    strips(view, stack, `${stack}.positions`, "What is added: waves, slower to the right", { column: "dimension" }),
    together(view, `${stack}.sum`, `“${here(view, stack)}” at position ${i}`, [
      ["embedding", view.row(`${stack}.embeddings`, i)],
      ["position", view.row(`${stack}.positions`, i)],
      ["sum", view.row(`${stack}.input`, i)],
    ]),
    table(["dimension", "wave", "embedding", "position", "sum"], [0, 1, 2, 3, 64, 65, 190, 191]
      .filter((k) => k < view.d)
      .map((k) => [String(k), wave(k), ...["embeddings", "positions", "input"].map(
        (name) => digits(view.row(`${stack}.${name}`, i)[k], 3))])),
  ];
}

/** A norm: mean and standard deviation of each piece, before and after. */
function norm(view, { stack, name, before }) {
  const i = view.current(stack), gain = view.about.norms[`${name}.weight`], bias = view.about.norms[`${name}.bias`];
  const x = view.row(before, i), y = view.row(name, i), middle = mean(x), spread = deviation(x);
  const unit = x.map((value) => (value - middle) / spread);
  return [
    together(view, `${name}.steps`, `“${here(view, stack)}”, from the sum to the norm's output`, [
      ["before", x], ["mean 0, deviation 1", unit], ["after gain and bias", y],
    ]),
    table(["dimension", "before", "minus mean, over deviation", "gain", "bias", "after gain and bias"], [0, 1, 2, 3].map((k) => [
      String(k), digits(x[k], 3), digits(unit[k], 3), digits(gain[k], 3), digits(bias[k], 3), digits(y[k], 3),
    ])),
    table(["piece", "mean before", "deviation before", "deviation after gain and bias"], view.rows(stack).map((row, j) => [
      tokenLabel(row), digits(mean(view.row(before, j)), 3), digits(deviation(view.row(before, j))),
      digits(deviation(view.row(name, j))),
    ])),
    strips(view, stack, name, "All pieces, after gain and bias", { column: "dimension" }),
  ];
}

/** A residual connection: what came in, what the sub-layer adds, and the sum. */
function sum(view, { stack, part }) {
  const { name, before } = view.residual(stack, part), made = view.module(stack, part), i = view.current(stack);
  return [
    ...(view.isOff(made) ? [paragraph("The sub-layer is off: it adds zeros, and the vector passes unchanged.")] : []),
    together(view, `${name}.sum`, `“${here(view, stack)}”: x + Sublayer(Norm(x))`, [
      ["x", view.row(before, i)], ["sub-layer", view.row(made, i)], ["sum", view.row(name, i)],
    ]),
    table(["piece", "size of x", "size of what is added", "size of the sum"], view.rows(stack).map((row, j) => [
      tokenLabel(row), ...[before, made, name].map((each) => digits(length(view.row(each, j)))),
    ])),
    paragraph("The size is the vector's length: the root of the sum of squares."),
    strips(view, stack, name, "All pieces, after the sum", { column: "dimension" }),
  ];
}

function feedForward(view, { stack, part }) {
  const module = view.module(stack, part), name = `${module}.activation`, i = view.current(stack);
  const active = view.row(name, i), zeros = active.filter((x) => x === 0).length;
  const strongest = topK(active, LIKELIEST).filter((k) => active[k] > 0);
  return [
    offSwitch(view, module, "this sub-layer"),
    paragraph(`For “${here(view, stack)}”, ${active.length - zeros} of ${active.length} units are above zero; ` +
      "max(0, x) has set the others to zero."),
    strips(view, stack, name, "Activations after max(0, x)", { column: "unit", signed: false }),
    table(["strongest unit", "activation"], strongest.map((k) => [String(k), digits(active[k], 3)])),
    strips(view, stack, module, "Output, narrow again", { column: "dimension" }),
  ];
}

/** The ten likeliest next pieces, by their logits. */
function likeliest(view) {
  const logits = view.row("logits", view.state.step).slice(), logProbs = logSoftmax(allowed(logits.slice()));
  return topK(allowed(logits), LIKELIEST).map((id) => ({ id, logit: logits[id], p: Math.exp(logProbs[id]) }));
}

function allowed(logits) {
  logits[0] = logits[1] = -Infinity; // padding and the start are never written
  return logits;
}

/** Their pieces come from the worker, with the vectors that they are compared with. */
function withWords(view, found, draw) {
  const place = element("div", { class: "likeliest" }, paragraph("…"));
  view.ask("embeddings", found.map(({ id }) => id)).then((rows) => {
    place.replaceChildren(...[draw(rows.map((row, i) => ({ ...row, ...found[i] })))].flat());
    place.dispatchEvent(new CustomEvent("drawn", { bubbles: true }));
  });
  return place;
}

function linear(view) {
  const { step } = view.state, x = view.row("decoder.norm", step);
  return [
    paragraph("One logit for each piece of the vocabulary: the dot product of the decoder's vector with the piece's own " +
      "embedding. The ten highest:"),
    withWords(view, likeliest(view), (words) => {
      const chosen = Math.min(words.length - 1, view.state.col ?? 0), { data, piece, logit } = words[chosen];
      const products = x.map((value, k) => value * data[k]);
      const strong = topK(products.map(Math.abs), 5);
      return [
        table(["piece", "logit", ""], words.map((word, j) => [
          word.id === view.run.next[step].id ? element("strong", {}, label(word.piece)) : label(word.piece),
          digits(word.logit, 3),
          element("button", {
            type: "button", "data-key": `logit.${j}`, "aria-pressed": String(j === chosen),
            click: () => view.set({ col: j }),
          }, "trace"),
        ])),
        vectors({
          key: "logit.product", title: `How “${label(piece)}” got its logit`, each: true, columns: view.d, column: "dimension",
          rows: [{ name: "decoder" }, { name: "embedding" }, { name: "product" }], at: (i) => [x, data, products][i],
        }),
        paragraph(`The ${view.d} products add up to ${digits(products.reduce((a, b) => a + b, 0), 3)}: the logit ` +
          `${digits(logit, 3)}. The largest in size: ${strong.map((k) => `${digits(products[k])} (dimension ${k})`).join(", ")}.`),
      ];
    }),
  ];
}

function softmax(view) {
  const { step, search, temperature, topk } = view.state, sampled = search === "sample";
  const found = likeliest(view);
  const cut = distribution(view.row("logits", step).slice(), { temperature, topK: topk || null });
  return [
    paragraph("All logits become probabilities that add up to 1. The ten likeliest next pieces:"),
    withWords(view, found, (words) => {
      const shown = words.map((word) => ({ ...word, now: sampled ? cut[word.id] : word.p }));
      const rest = 1 - shown.reduce((total, { now }) => total + now, 0);
      return [
        table(["piece", "logit", sampled ? `at temperature ${temperature}` : "probability", ""], shown.map((word) => [
          word.id === view.run.next[step].id ? element("strong", {}, `${label(word.piece)} (written)`) : label(word.piece),
          digits(word.logit), word.now ? percent(word.now) : "cut by top-k",
          element("span", { class: "bar", style: `--w:${word.now.toFixed(4)}` }),
        ]), { id: "likeliest" }),
        paragraph(`All other pieces together: ${percent(Math.max(0, rest))}.`),
      ];
    }),
    ...(search === "beam" ? [paragraph("Beam search weighs whole sentences: the piece that is written need not be the likeliest one.")] : []),
  ];
}

/** A button that switches a part off, or on again. */
export function offSwitch(view, name, words) {
  const off = view.isOff(name);
  return element("button", {
    type: "button", class: off ? "switch off" : "switch", "data-key": `off.${name}`, click: () => view.toggle(name),
  }, off ? `Switch ${words} on again` : `Switch ${words} off`);
}

/** The inside of a box. */
export function panel(view, box) {
  const { stack, part, place } = parts(box);
  if (box === "linear") return linear(view);
  if (box === "softmax") return softmax(view);
  if (part === "embeddings") return embeddings(view, { stack });
  if (part === "positions") return positions(view, { stack });
  if (part === "norm") return norm(view, { stack, name: `${stack}.norm`, before: view.last(stack) });
  const { name, before } = view.residual(stack, part);
  if (place === "norm") return norm(view, { stack, name: `${name}.norm`, before });
  if (place === "add") return sum(view, { stack, part });
  if (part === "ffn") return feedForward(view, { stack, part });
  return attention(view, { stack, part, offSwitch });
}
