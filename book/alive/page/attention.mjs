// An attention box, opened: its heads, and of one head all numbers from Q and K to the output.

import { topK } from "../arithmetic.mjs";
import { element } from "../dom.mjs";
import { attentionMap, inWords, thumbnail, vectors } from "./maps.mjs";
import { best, digits, label, percent, weighed } from "./words.mjs";

const SHOWN = { weights: "Weights", scores: "Scores", mask: "Mask" };

/** Of a cell: query, key, their product, the score, and the weight that the softmax gives. */
function trace(view, { module, rows, columns, head, row, col, open }) {
  const { size } = view, n = columns.length, from = head * size;
  const q = view.row(`${module}.query`, row, from, size), k = view.row(`${module}.key`, col, from, size);
  const products = q.map((value, i) => value * k[i]), dot = products.reduce((a, b) => a + b, 0);
  const score = (j) => head3(view.run.tensors[`${module}.scores`], head, row, j);
  const weight = (j) => head3(view.run.tensors[`${module}.weights`], head, row, j);
  const strongest = topK(products.map(Math.abs), 3);
  const total = columns.reduce((sum, _, j) => (open(row, j) ? sum + Math.exp(score(j)) : sum), 0);
  const asks = label(rows[row].piece), looked = label(columns[col].piece);
  return element("section", { class: "trace", "aria-label": "The cell, step by step" }, [
    element("h4", {}, `“${asks}” asks, “${looked}” answers`),
    vectors({
      key: "trace", title: "Query, key, and their products", each: true, columns: size, column: "dimension",
      rows: [{ name: "query" }, { name: "key" }, { name: "product" }], at: (i) => [q, k, products][i],
    }),
    element("ol", {}, [
      element("li", {}, `Dot product: the ${size} products add up to ${digits(dot, 3)}. The largest in size: ` +
        `${strongest.map((i) => `${digits(products[i])} (dimension ${i})`).join(", ")}.`),
      element("li", { "data-trace": "score" }, `Score: ${digits(dot, 3)} / √${size} = ${digits(score(col), 3)}.`),
      element("li", {}, open(row, col) ? "Mask: may look."
        : `Mask: hidden. “${looked}” has not been written when “${asks}” asks.`),
      element("li", { "data-trace": "weight" }, open(row, col)
        ? `Softmax: e^${digits(score(col))} / ${digits(total)} = ${weighed(weight(col))}, over the ${n} columns that may be seen.`
          .replace(`${n} columns`, `${columns.filter((_, j) => open(row, j)).length} columns`)
        : "Softmax: weight 0."),
    ]),
    element("details", { "data-key": "products" }, [
      element("summary", {}, `All ${size} products`),
      element("div", { class: "scroll" }, element("table", { class: "numbers" }, [
        element("thead", {}, element("tr", {}, ["dimension", "query", "key", "product"].map((h) => element("th", { scope: "col" }, h)))),
        element("tbody", {}, [...products].map((product, i) => element("tr", {}, [
          element("th", { scope: "row" }, String(i)), ...[q[i], k[i], product].map((x) => element("td", {}, digits(x, 3))),
        ]))),
      ])),
    ]),
  ]);
}

/** One number of a tensor (heads, rows, columns). */
function head3({ data, shape: [, n, m] }, head, i, j) {
  return data[(head * n + i) * m + j];
}

/** Which word this step is about to write; the encoder writes none. */
function before({ next, state }, stack) {
  return stack === "encoder" ? "In " : `Before “${label(next[state.step].piece)}” is written, in `;
}

/** What stands above the maps if they are not those of this sentence's translation. */
function remark(view, { module, head, opened }) {
  const words = [];
  if (view.isOff(module)) words.push("This sub-layer is off. Its weights are computed, but its output is set to zero: the maps do not count now.");
  else if (view.isOff(`${module}.head.${head}`)) words.push(`Head ${head} is off. Its weights are computed, but its output is set to zero: this map does not count now.`);
  if (opened) words.push("The future is unmasked: all rows at once, as in training. Decoding does not change.");
  return words.map((text) => element("p", { class: "remark" }, text));
}

/** The inside of an attention box. */
export function attention(decoding, { stack, part, offSwitch }) {
  const opened = part === "self" && stack === "decoder" && !decoding.state.mask && decoding.run.open;
  const view = opened ? decoding.unmasked() : decoding;
  const { state, run, about, size } = view, module = view.module(stack, part);
  const rows = view.rows(stack), columns = part === "cross" ? view.src : rows;
  const heads = about.config.n_heads, head = Math.min(state.head, heads - 1), current = view.current(stack);
  const at = (name, h) => (i, j) => head3(run.tensors[`${module}.${name}`], h, i, j);
  const mask = run.tensors[`${module}.mask`], open = (i, j) => mask.data[i * mask.shape[1] + j] === 1;
  const weights = at("weights", head);
  const row = Math.min(state.row ?? current, rows.length - 1);
  const strongest = best(columns.map((_, j) => weights(row, j)));
  const col = Math.min(state.col ?? strongest, columns.length - 1);
  const now = columns.map((_, j) => weights(current, j));

  const thumbnails = Array.from({ length: heads }, (_, h) => {
    const name = `${module}.head.${h}`, most = best(columns.map((_, j) => at("weights", h)(current, j)));
    const words = `Head ${h}: “${label(rows[current].piece)}” looks most at “${label(columns[most].piece)}”, ` +
      `${percent(at("weights", h)(current, most))}${view.isOff(name) ? "; switched off" : ""}`;
    return element("button", {
      type: "button", class: view.isOff(name) || view.isOff(module) ? "head off" : "head", "data-key": `head.${h}`,
      "data-head": h, "aria-pressed": String(h === head), "aria-label": words, title: words,
      click: () => view.set({ head: h, row: null, col: null }),
    }, [thumbnail({ rows, columns, at: at("weights", h), current }), element("span", { "aria-hidden": "true" }, `head ${h}`)]);
  });

  const shown = state.show, scores = at("scores", head);
  let most = 1;
  if (shown === "scores") most = Math.max(...rows.flatMap((_, i) => columns.map((_, j) => Math.abs(scores(i, j)))));
  const map = attentionMap({
    key: `${module}.map`, title: `${SHOWN[shown]} of head ${head}, layer ${state.layer}: rows ask, columns are looked at`,
    rows, columns, current, writes: stack === "decoder" ? view.next : [], chosen: { row, col }, most, signed: shown === "scores",
    at: { weights, scores, mask: (i, j) => (open(i, j) ? 1 : 0) }[shown],
    hidden: (i, j) => !open(i, j),
    unit: { weights: percent, scores: (x) => `score ${digits(x)}`, mask: () => "may look" }[shown],
    onChoose: (cell) => view.set(cell),
  });
  const choices = element("div", { class: "choices", role: "group", "aria-label": "What the map shows" },
    Object.entries(SHOWN).map(([key, words]) => element("button", {
      type: "button", "data-key": `show.${key}`, "aria-pressed": String(key === shown), click: () => view.set({ show: key }),
    }, words)));
  const slice = (name, title, tokens, key) => vectors({
    key: `${module}.${key}`, title, rows: tokens, columns: size, column: "dimension",
    at: (i) => view.row(`${module}.${name}`, i, head * size, size), current: tokens === rows ? current : -1,
  });

  return [
    ...remark(view, { module, head, opened }),
    element("div", { class: "heads", role: "group", "aria-label": `Heads of layer ${state.layer}`, style: `--heads:${heads}` }, thumbnails),
    element("p", { class: "says" }, `${opened ? "In " : before(view, stack)}head ${head}: “${label(rows[current].piece)}” looks most at ` +
      `“${label(columns[best(now)].piece)}” (${percent(Math.max(...now))}).` +
      (stack === "decoder" ? ` A row decides the piece after it: that of “${label(rows[current].piece)}” decides “${label(view.next[current].piece)}”.` : "")),
    choices,
    map,
    element("div", { class: "switches" }, [
      view.isOff(module) ? null : offSwitch(view, `${module}.head.${head}`, `head ${head}`), offSwitch(view, module, "this sub-layer"),
    ]),
    element("p", { class: "visually-hidden" }, `Head ${head} in words. Each row looks most: ${inWords(rows, columns, weights)}.`),
    trace(view, { module, rows, columns, head, row, col, open }),
    element("h4", {}, `Inside head ${head}`),
    slice("query", "Q: what each row asks for", rows, "Q"),
    slice("key", "K: what each column offers to be found by", columns, "K"),
    slice("value", "V: what each column hands over", columns, "V"),
    slice("heads", "Output: the values, mixed by the weights", rows, "output"),
  ];
}
