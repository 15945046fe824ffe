// What a reader can change: the search, the positions, the mask, heads and sub-layers.

import { logSoftmax } from "../arithmetic.mjs";
import { element, spaced } from "../dom.mjs";
import { thumbnail } from "./maps.mjs";
import { table } from "./panels.mjs";
import { defaults } from "./state.mjs";
import { beamTree } from "./tree.mjs";
import { label, percent } from "./words.mjs";

const SEARCHES = { beam: "Beam", greedy: "Greedy", sample: "Sampling" };
const TOP_K = [0, 1, 2, 5, 10, 50];
const CHANGES = ["search", "width", "alpha", "temperature", "topk", "seed", "off", "positions", "mask"];

/** The words of a name: "decoder.layers.1.cross_attention" in a table. */
export function inWords(name) {
  const [, stack, layer, part, head] = /^(\w+)\.layers\.(\d+)\.(\w+?)(?:\.head\.(\d+))?$/.exec(name) ?? [];
  if (!stack) return name;
  const words = `${stack}, layer ${layer}, ${part.replace("_", "-")}`;
  return head === undefined ? words : `${words}, head ${head}`;
}

/** The words of a text, those marked that another text lacks in this order. */
export function marked(text, other) {
  const a = text.split(" "), b = other.split(" ");
  const common = Array.from({ length: a.length + 1 }, () => new Array(b.length + 1).fill(0));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      common[i][j] = a[i] === b[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    }
  }
  const words = [];
  for (let i = 0, j = 0; i < a.length; i++) {
    while (j < b.length && a[i] !== b[j] && common[i][j + 1] > common[i + 1][j]) j++;
    if (a[i] === b[j]) {
      j++;
      words.push(a[i]);
    } else words.push(element("mark", {}, a[i]));
  }
  return spaced(words);
}

/** Draw a place again only if what it shows is new. */
function once(place, shown, draw) {
  const key = JSON.stringify(shown);
  if (place.dataset.drawn === key) return;
  place.dataset.drawn = key;
  draw();
}

export class Play {
  constructor(root, set) {
    this.root = root;
    this.set = set;
    this.result = element("div", { class: "result", "aria-live": "polite" });
    this.search = element("fieldset", { class: "search" });
    this.parts = element("fieldset", { class: "parts" });
    this.open = element("div", { class: "below" });
    this.tree = element("div", { class: "below" });
    root.replaceChildren(this.result, this.open, this.search, this.parts, this.tree);
  }

  /** Draw what has changed; the rest keeps its place for a screen reader. */
  show({ state, run, about }) {
    const { search, width, alpha, temperature, topk, off, positions, mask, layer, head, step } = state;
    const theme = document.documentElement.dataset.theme, settings = [search, width, alpha, temperature, topk, state.seed, off, positions, mask];
    once(this.result, [run.number, settings], () => this.showResult(state, run));
    once(this.search, settings, () => this.showSearch(state, about));
    once(this.parts, settings, () => this.showParts(state, about));
    once(this.open, [run.number, theme, run.open ? [layer, head, step] : null], () => {
      const before = this.open.childElementCount;
      this.open.replaceChildren(...(run.open ? [future(state, run, about)] : []));
      if (this.unmasking && !before && run.open) this.open.scrollIntoView({ block: "start" });
      if (run.open) this.unmasking = false;
    });
    once(this.tree, [run.number, theme], () => {
      const { width, alpha: asked } = run.question.search;
      this.tree.replaceChildren(...(run.tree ? [beamTree({ tree: run.tree, width, alpha: asked ?? about.alpha })] : []));
    });
  }

  showResult(state, run) {
    const changed = run.translation !== run.unchanged;
    const touched = CHANGES.some((key) => String(state[key]) !== String(defaults()[key]));
    const { off, positions } = run.question.changes, parts = off.length > 0 || !positions; // of this run
    const line = (name, words, data) => element("p", { "data-result": data }, [
      element("span", { class: "name" }, name), element("span", { class: "words" }, words),
    ]);
    this.result.replaceChildren(
      ...(run.usual !== null ? [line("The page's own beam", marked(run.usual, run.translation), "usual")] : []),
      ...(parts ? [line("All parts on", marked(run.unchanged, run.translation), "unchanged")] : []),
      line(parts ? "With your changes" : "Translation", parts ? marked(run.translation, run.unchanged) : [run.translation], "now"),
      ...(parts && !changed ? [element("p", { class: "note" }, "The same: for this sentence, the model can do without.")] : []),
      ...(touched ? [element("button", { type: "button", "data-key": "reset", click: () => this.reset() }, "Put everything back")] : []),
    );
  }

  reset() {
    const start = defaults();
    this.set(Object.fromEntries(CHANGES.map((key) => [key, start[key]])));
  }

  range({ key, words, value, min, max, step, written = String(value) }) {
    const output = element("output", {}, written);
    return element("label", { class: "range" }, [
      element("span", {}, words),
      element("input", {
        type: "range", min, max, step, value, "data-key": key,
        input: (event) => { output.textContent = event.target.value; },
        change: (event) => this.set({ [key]: Number(event.target.value) }),
      }),
      output,
    ]);
  }

  showSearch(state, about) {
    const radios = Object.entries(SEARCHES).map(([key, words]) => element("label", {}, [
      element("input", {
        type: "radio", name: "alive-search", value: key, checked: state.search === key, "data-key": `search.${key}`,
        change: () => this.set({ search: key }),
      }),
      ` ${words}`,
    ]));
    const more = {
      beam: () => [
        this.range({ key: "width", words: "Width", value: state.width, min: 1, max: 5, step: 1 }),
        this.range({ key: "alpha", words: "Length penalty α", value: state.alpha ?? about.alpha, min: 0, max: 2, step: 0.1 }),
      ],
      greedy: () => [],
      sample: () => [
        this.range({ key: "temperature", words: "Temperature", value: state.temperature, min: 0.1, max: 2, step: 0.1 }),
        element("label", { class: "range" }, [
          element("span", {}, "Top-k"),
          element("select", { "data-key": "topk", change: (event) => this.set({ topk: Number(event.target.value) }) },
            TOP_K.map((k) => element("option", { value: k, selected: k === state.topk }, k ? String(k) : "all"))),
        ]),
        element("button", { type: "button", "data-key": "draw", click: () => this.set({ seed: state.seed + 1 }) }, "Draw again"),
      ],
    }[state.search]();
    this.search.replaceChildren(element("legend", {}, "How the next piece is chosen"),
      element("div", { class: "choices" }, radios), ...more);
  }

  showParts(state, about) {
    const press = (name, words, title) => element("button", {
      type: "button", class: "part", "data-key": `part.${name}`, "data-part": name, "aria-label": title,
      "aria-pressed": String(state.off.includes(name)),
      click: () => {
        const { off } = state;
        this.set({ off: off.includes(name) ? off.filter((each) => each !== name) : [...off, name] });
      },
    }, words);
    const rows = about.sublayers.map((name) => {
      const heads = name.endsWith("_attention") ? about.config.n_heads : 0;
      return [
        inWords(name).replace("encoder, layer", "encoder").replace("decoder, layer", "decoder"),
        element("span", { class: "head-switches" }, Array.from({ length: heads }, (_, h) => press(`${name}.head.${h}`, String(h), `Switch off head ${h} of ${inWords(name)}`))),
        press(name, "all", `Switch off all of ${inWords(name)}`),
      ];
    });
    const check = (key, words) => element("label", {}, [
      element("input", {
        type: "checkbox", checked: !state[key], "data-key": key, change: (event) => {
          this.unmasking = key === "mask" && event.target.checked; // its explanation is scrolled to
          this.set({ [key]: event.target.checked ? 0 : 1 });
        },
      }),
      ` ${words}`,
    ]);
    this.parts.replaceChildren(element("legend", {}, "What is switched off"),
      element("div", { class: "choices" }, [check("positions", "Remove the positions"), check("mask", "Unmask the future")]),
      table(["sub-layer", "heads", "whole"], rows, { class: "numbers switchboard" }));
  }
}

/** What each row says of the piece that it must write, with the mask and without. */
function future(state, run, about) {
  const width = about.config.vocab_size, count = run.tgt.length;
  const chance = (tensors, i) => {
    const row = tensors.logits.data.slice(i * width, (i + 1) * width);
    row[0] = row[1] = -Infinity;
    return Math.exp(logSoftmax(row)[run.next[i].id]);
  };
  const layer = Math.min(state.layer, about.config.n_layers - 1), head = Math.min(state.head, about.config.n_heads - 1);
  const name = `decoder.layers.${layer}.self_attention.weights`;
  const small = (tensors, words) => element("figure", {}, [
    element("figcaption", {}, words),
    element("span", { class: "across", "aria-hidden": "true" }, `looked at: ${label(run.tgt[0].piece)} to ${label(run.tgt.at(-1).piece)} →`),
    element("span", { class: "down", "aria-hidden": "true" }, "asks ↓"),
    thumbnail({ rows: run.tgt, columns: run.tgt, at: (i, j) => tensors[name].data[(head * count + i) * count + j] }),
  ]);
  const mask = run.tensors["decoder.layers.0.self_attention.mask"].data;
  const hidden = (i) => Array.from({ length: i + 1 }, (_, j) => mask[i * count + j]).filter((seen) => !seen).length;
  const rows = run.tgt.map((_, i) => ({ i, masked: chance(run.tensors, i), open: chance(run.open, i) }));
  const lower = rows.filter((row) => row.open < row.masked).length;
  const most = rows.reduce((a, b) => (b.masked - b.open > a.masked - a.open ? b : a));
  return element("section", { class: "future" }, [
    element("h3", {}, "The future unmasked"),
    element("p", {}, "The translation does not change. A decoding step asks with the newest piece alone, and all others are older: " +
      `of the ${state.step + 1} columns of this step's row, the mask hides ${hidden(state.step)}. The keys and values of earlier ` +
      "pieces were computed when those were written, and are kept."),
    element("p", {}, "Training would change. There, all rows run at once, and without the mask a row sees the very piece that it " +
      "must write: a model trained so could copy. This one was trained with the mask, and has never seen such rows. " +
      `Without it, the probability of the right piece is lower in ${lower} of ${rows.length} rows` +
      (most.open < most.masked ? `; most of all that of “${label(run.next[most.i].piece)}”, from ${percent(most.masked)} to ${percent(most.open)}.` : ".")),
    element("div", { class: "pair" }, [
      small(run.tensors, `Head ${layer}.${head}, masked`), small(run.open, `Head ${layer}.${head}, unmasked`),
    ]),
    table(["row", "must write", "masked", "unmasked"], rows.map(({ i, masked, open }) => [
      label(run.tgt[i].piece), label(run.next[i].piece), percent(masked), percent(open),
    ])),
  ]);
}
