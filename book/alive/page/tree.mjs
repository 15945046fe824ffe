// The tree of a beam search, from left to right: a column for each step.

import { element, svg } from "../dom.mjs";
import { table } from "./panels.mjs";
import { digits, label, percent } from "./words.mjs";

const COLUMN = 112, ROW = 30, BOX = 92, TALL = 22;
const DROPPED = 2; // candidates of each step that were not kept, and are drawn

/** Nodes in columns: those that were kept first, the likeliest on top. */
function columnsOf(tree) {
  const columns = [];
  tree.forEach((node, place) => (columns[node.step] ??= []).push({ ...node, place }));
  return columns.map((nodes) => {
    nodes.sort((a, b) => b.logProb - a.logProb);
    return [...nodes.filter(({ kept }) => kept), ...nodes.filter(({ kept }) => !kept).slice(0, DROPPED)];
  });
}

/** What led to a node, as text. */
function beginning(tree, place) {
  const pieces = [];
  for (let i = place; i >= 0; i = tree[i].parent) pieces.unshift(tree[i].piece);
  return pieces.map((piece) => piece.replaceAll("\u2581", " ")).join("").replace("</s>", "").trim();
}

export function beamTree({ tree, width, alpha }) {
  const columns = columnsOf(tree), spots = new Map();
  columns.forEach((nodes, step) => nodes.forEach(({ place }, row) => {
    spots.set(place, { x: step * COLUMN, y: row * ROW });
  }));
  const tall = Math.max(...columns.map((nodes) => nodes.length)) * ROW, wide = columns.length * COLUMN;
  const kindOf = (node) => (node.best ? "best" : node.kept ? "kept" : "dropped");
  const lines = [], boxes = [];
  for (const node of columns.flat()) {
    const { x, y } = spots.get(node.place), parent = spots.get(node.parent);
    const kind = kindOf(node), middle = y + TALL / 2;
    if (parent) {
      const from = parent.x + BOX, start = parent.y + TALL / 2, bend = (from + x) / 2;
      lines.push(svg("path", { class: `line ${kind}`, d: `M${from} ${start} C${bend} ${start} ${bend} ${middle} ${x} ${middle}` }));
    }
    const before = node.parent < 0 ? 0 : tree[node.parent].logProb;
    const words = node.ended ? "(end)" : label(node.piece);
    boxes.push(svg("g", { class: `node ${kind}` }, [
      svg("title", {}, `${beginning(tree, node.place)}: log-probability ${digits(node.logProb)}` +
        (node.ended ? `, score ${digits(node.score)}` : "")),
      svg("rect", { x, y, width: BOX, height: TALL, rx: 5 }),
      svg("text", { x: x + 6, y: y + 15 }, words.length > 8 ? `${words.slice(0, 7)}…` : words),
      svg("text", { x: x + BOX - 5, y: y + 15, class: "p", "text-anchor": "end" }, percentShort(Math.exp(node.logProb - before))),
    ]));
  }
  // The best path is drawn last, over the others.
  const last = (a, b) => Number(a.classList.contains("best")) - Number(b.classList.contains("best"));
  const ends = tree.map((node, place) => ({ ...node, place })).filter(({ ended, kept }) => ended && kept);
  ends.sort((a, b) => b.score - a.score);
  const words = `Beam search of width ${width}: ${columns.length} steps. The winner is “${beginning(tree, ends[0]?.place ?? -1)}”. ` +
    "The tables below list what was kept.";
  return element("figure", { class: "beam" }, [
    element("figcaption", {}, `What a beam of ${width} kept. Blue: the winner; outlined: kept for a while; gray: dropped at once ` +
      `(the ${DROPPED} likeliest of each step). The number is the piece's own probability.`),
    element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Tree of the beam search; scrolls sideways" }, svg("svg", {
      viewBox: `-2 -2 ${wide} ${tall}`, width: wide, height: tall, role: "img", "aria-label": words,
    }, [...lines.sort(last), ...boxes.sort(last)])),
    table(["finished", "pieces", "log-probability", "divided by the penalty"], ends.map((node) => [
      node.best ? element("strong", {}, beginning(tree, node.place)) : beginning(tree, node.place),
      String(node.step + 1), digits(node.logProb), digits(node.score),
    ]), { class: "numbers finished" }),
    element("p", {}, `A finished sentence of n pieces, its end included, is judged by its log-probability over ((5 + n) / 6)^α, ` +
      `with α = ${digits(alpha, 1)} here. At α = 0 nothing is divided, and each further piece only makes it worse.`),
    element("details", { "data-key": "beam-steps" }, [
      element("summary", {}, "What was kept, step by step"),
      element("ol", {}, columns.map((nodes) => element("li", {}, nodes.filter(({ kept }) => kept)
        .map((node) => `${beginning(tree, node.place)}${node.ended ? " (end)" : ""}: ${digits(node.logProb)}`).join("; ")))),
    ]),
  ]);
}

function percentShort(p) {
  return p < 0.01 ? "<1 %" : percent(p).replace(/over 99.9/, "100").replace(/\.\d/, "");
}
