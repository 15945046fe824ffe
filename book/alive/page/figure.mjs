// Figure 1, drawn large: a button for each box, and in it the vector that leaves it now.

import { element, svg } from "../dom.mjs";
import { paint } from "./colors.mjs";
import { label } from "./words.mjs";

const WIDTH = 640;
const LEFT = { x: 46, width: 252, line: 28, frame: [10, 300] };
const RIGHT = { x: 342, width: 252, line: 612, frame: [326, 304] };
const TALL = 64, LOW = 44, GAP = 8, NAME = 26; // heights of boxes, the space between them, a stack's name

/** From top to bottom: names of boxes, their words, heights and colors. */
const sublayer = (stack, part, words, kind) => [
  [`${stack}.${part}.add`, "Add", LOW, "norm"],
  [`${stack}.${part}`, words, TALL, kind],
  [`${stack}.${part}.norm`, "Norm", LOW, "norm"],
];
const DECODER = [
  ["softmax", "Softmax", LOW, "out"],
  ["linear", "Linear", LOW, "out"],
  ["decoder.norm", "Norm", LOW, "norm"],
  null, // the frame of the layers begins
  sublayer("decoder", "ffn", "Feed-forward", "feed"),
  sublayer("decoder", "cross", "Cross-attention", "attention"),
  sublayer("decoder", "self", "Masked self-attention", "attention"),
  null, // and ends
  ["decoder.positions", "Positions", LOW, "embed"],
  ["decoder.embeddings", "Embeddings", LOW, "embed"],
];
const ENCODER = [
  ["encoder.norm", "Norm: the memory", LOW, "norm"],
  null,
  sublayer("encoder", "ffn", "Feed-forward", "feed"),
  sublayer("encoder", "self", "Self-attention", "attention"),
  null,
  ["encoder.positions", "Positions", LOW, "embed"],
  ["encoder.embeddings", "Embeddings", LOW, "embed"],
];

/** Places of the boxes of one column, from its lower end upward. */
function stacked(column, { x, width }, bottom) {
  const boxes = [], frame = {}, groups = [];
  let y = bottom;
  for (const entry of [...column].reverse()) {
    if (entry === null) {
      if (frame.bottom === undefined) {
        frame.bottom = y - 8;
        y -= 26;
      } else {
        frame.top = y;
        y -= 16 + NAME;
      }
      continue;
    }
    const group = Array.isArray(entry[0]) ? entry : [entry];
    const places = [...group].reverse().map(([name, words, height, kind]) => {
      y -= height;
      const place = { name, words, kind, x, y, width, height };
      y -= GAP;
      return place;
    });
    boxes.push(...places);
    if (group.length > 1) {
      groups.push(places);
      y -= 10;
    }
  }
  return { boxes, frame, groups, top: y + GAP };
}

const BOTTOM = 940;
const RIGHT_SIDE = stacked(DECODER, RIGHT, BOTTOM), LEFT_SIDE = stacked(ENCODER, LEFT, BOTTOM);
const HEIGHT = BOTTOM + 40 - RIGHT_SIDE.top + 40;
const SHIFT = 40 - RIGHT_SIDE.top; // room for the next word above

/** All boxes, in the order in which the numbers flow. */
export const BOXES = [...LEFT_SIDE.boxes, ...RIGHT_SIDE.boxes];

function arrow(points, head = true) {
  const path = points.map(([x, y], i) => `${i ? "L" : "M"}${x} ${y + SHIFT}`).join(" ");
  return svg("path", { class: "arrow", d: path, "marker-end": head ? "url(#alive-head)" : false });
}

/** Frames, arrows and the paths around the sub-layers: what lies behind the boxes. */
function drawing() {
  const shapes = [];
  for (const [side, { x, width, line, frame }] of [[LEFT_SIDE, LEFT], [RIGHT_SIDE, RIGHT]]) {
    shapes.push(svg("rect", {
      class: "stack", x: frame[0], y: side.frame.top + SHIFT, width: frame[1],
      height: side.frame.bottom - side.frame.top, rx: 14,
    }));
    const middle = x + width / 2, edge = line < middle ? x : x + width;
    const columns = side.boxes;
    columns.slice(1).forEach((box, i) => {
      shapes.push(arrow([[middle, columns[i].y], [middle, box.y + box.height + 1]]));
    });
    shapes.push(arrow([[middle, BOTTOM + 10], [middle, BOTTOM + 1]]));
    for (const [norm, , sum] of side.groups) { // the residual connection
      const from = norm.y + norm.height + 5, to = sum.y + sum.height / 2;
      shapes.push(arrow([[middle, from], [line, from], [line, to], [edge, to]]));
    }
  }
  const memory = LEFT_SIDE.boxes.at(-1), cross = RIGHT_SIDE.boxes.find((box) => box.name === "decoder.cross");
  const between = (LEFT.frame[0] + LEFT.frame[1] + RIGHT.frame[0]) / 2;
  const up = memory.y - 14, into = cross.y + cross.height / 2, from = memory.x + memory.width / 2;
  shapes.push(arrow([[from, memory.y], [from, up], [between, up], [between, into], [RIGHT.x, into]]));
  const top = RIGHT_SIDE.boxes.at(-1), middle = top.x + top.width / 2;
  shapes.push(arrow([[middle, top.y], [middle, top.y - 12]]));
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true", class: "lines" }, [
    svg("defs", {}, svg("marker", {
      id: "alive-head", viewBox: "0 0 8 8", refX: "7", refY: "4", markerWidth: "6",
      markerHeight: "6", orient: "auto",
    }, svg("path", { d: "M0 0 L8 4 L0 8 z" }))),
    ...shapes,
  ]);
}

const share = (value, of) => `${((100 * value) / of).toFixed(2)}%`;
const at = (x, y, width, height) =>
  `left:${share(x, WIDTH)};top:${share(y + SHIFT, HEIGHT)};` +
  `width:${share(width, WIDTH)};height:${share(height, HEIGHT)}`;

/** A box's words, and where it stands: there are many called "Norm". */
function spoken(name, words) {
  const [stack, part, place] = name.split(".");
  if (!part) return words;
  const sublayer = { self: "self-attention", cross: "cross-attention", ffn: "feed-forward" }[part];
  return `${words}, ${stack}${place ? `, ${place === "norm" ? "before" : "after"} ${sublayer}` : ""}`;
}

/** The figure; `open(name)` is called when a box is chosen. */
export class Figure {
  constructor(open) {
    this.buttons = new Map(BOXES.map(({ name, words, kind, ...box }) => {
      const strip = element("canvas", { "aria-hidden": "true" });
      const button = element("button", {
        type: "button", class: `box ${kind}`, "data-box": name, "aria-label": spoken(name, words), "aria-expanded": "false",
        "aria-controls": "alive-panel", style: at(box.x, box.y, box.width, box.height),
        click: () => open(name),
      }, [element("span", {}, words), strip]);
      return [name, button];
    }));
    const flow = (words, x, y, width) =>
      element("p", { class: "flow", style: at(x, y, width, 30) }, words);
    this.next = flow("", RIGHT.x, RIGHT_SIDE.top - 46, RIGHT.width);
    this.layer = element("p", { class: "stack-name", style: at(LEFT.frame[0], -SHIFT + 6, LEFT.frame[1], 60) });
    this.times = [];
    const named = (words, side, { frame: [x, width] }) => {
      const times = element("span"), style = at(x + 10, side.frame.top - NAME - 2, width - 20, NAME);
      this.times.push(times);
      return element("p", { class: "stack-name over", style }, [element("span", {}, words), times]);
    };
    this.root = element("div", {
      class: "figure-1", role: "group", "aria-label": "Figure 1 of the paper, with the order of this model: " +
        "left the encoder, right the decoder. Every box opens.",
      style: `aspect-ratio:${WIDTH} / ${HEIGHT}`,
    }, [
      drawing(),
      this.layer,
      named("Encoder", LEFT_SIDE, LEFT),
      named("Decoder", RIGHT_SIDE, RIGHT),
      this.next,
      ...this.buttons.values(),
      flow("German pieces", LEFT.x, BOTTOM + 10, LEFT.width),
      flow("English pieces so far", RIGHT.x, BOTTOM + 10, RIGHT.width),
    ]);
  }

  /** Show the state: which box is open, which parts are off, what leaves each box now. */
  show({ state, run, about, outputOf, isOff }) {
    const count = about?.config.n_layers ?? 0;
    this.layer.textContent = count ? `Layer shown: ${state.layer}` : "";
    for (const times of this.times) times.textContent = count ? `× ${count}` : "";
    for (const [name, button] of this.buttons) {
      button.setAttribute("aria-expanded", String(name === state.box));
      button.classList.toggle("off", isOff(name));
      const output = run && outputOf(name);
      if (output) paint(button.querySelector("canvas"), output.values, 1, output.values.length, { signed: output.signed });
    }
    this.next.textContent = run ? `writes “${label(run.next[state.step].piece)}”` : "";
  }
}
