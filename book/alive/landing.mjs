// The landing page: the sentence can be edited, and the model translates as one types.
//
// The weights are fetched when the sentence is first touched. Until they have come, the
// page shows what it was built with.

import { Engine, progressOf } from "./client.mjs";
import { element, spaced, svg } from "./dom.mjs";
import { LONGEST, refusal, warning } from "./hints.mjs";

const PAUSE = 350; // milliseconds without a key, before the slower search
const demo = document.querySelector(".demo");
const typed = demo.querySelector(".sentence.typed");
const written = demo.querySelector(".sentence.written");
const figure = demo.querySelector("figure");
const hint = demo.querySelector(".hint");
const inside = hint.querySelector("a"); // to the page that opens all numbers

// --- The worker -------------------------------------------------------------------------
const engine = new Engine({
  onProgress(progress) {
    const { text, share } = progressOf(progress);
    bar.hidden = false;
    if (share !== null) bar.value = share;
    if (note.textContent !== text) say(text);
  },
  onFail() {
    bar.hidden = true;
    say("The model could not be loaded. Type again to try once more.");
  },
});

function load() {
  if (!engine.loaded) say("Loading the model …");
  return engine.load();
}

// --- What is shown ------------------------------------------------------------------------
const box = element("textarea", {
  "aria-label": "German sentence, translated as you type",
  lang: "de", rows: "1", spellcheck: "false", autocapitalize: "sentences",
  autocomplete: "off", maxlength: "20000",
});
const note = element("p", { class: "note", role: "status" });
const bar = element("progress", { max: "1", value: "0", "aria-label": "Model loaded" });
const weighed = element("p", { class: "hint weighed", "aria-live": "polite" });

function say(text) {
  note.textContent = text;
}

function prepare() {
  const field = element("div", { class: "field" });
  typed.before(field);
  box.value = typed.textContent;
  field.append(typed, box);
  typed.setAttribute("aria-hidden", "true"); // the box says the same
  demo.querySelector(".name").textContent = "You type: edit this sentence";
  bar.hidden = weighed.hidden = true;
  field.after(note, bar);
  hint.after(weighed);
  demo.classList.add("editable");
}

/** An attention map, as the book draws it: English words are rows, German ones columns. */
function drawMap({ source, target, weights }) {
  const cells = weights.flatMap((row, i) => row.map((weight, j) => svg("rect", {
    x: j * 30, y: i * 26, width: 29, height: 25, rx: 3, "data-row": i, "data-column": j,
    style: `--w:${weight.toFixed(2)}`,
  })));
  const rows = target.map((word, i) => svg("text", {
    x: -8, y: i * 26 + 17, "text-anchor": "end", "data-row": i,
  }, [word]));
  const columns = source.map((word, j) => svg("text", {
    transform: `translate(${j * 30 + 12} -8) rotate(-50)`, "data-column": j,
  }, [word]));
  const longest = (words) => Math.max(...words.map((word) => word.length));
  const left = Math.max(92, 8.2 * longest(target) + 12);
  const top = Math.max(92, 6.4 * longest(source) + 16);
  const width = 30 * source.length + left + Math.max(66, 5.4 * longest(source));
  const box = [-left, -top, width, 26 * target.length + top + 4];
  return svg("svg", {
    class: "map", viewBox: box.map(Math.round).join(" "), role: "img",
    "aria-label": inWords({ source, target, weights }),
  }, [svg("g", {}, cells), ...rows, ...columns]);
}

/** An attention map in words, for a screen reader. */
function inWords({ source, target, weights }) {
  const bare = (word) => word.replace(/[.,]+$/, "");
  const pairs = target.map((word, i) => {
    const best = weights[i].indexOf(Math.max(...weights[i]));
    return `${bare(word)} at ${bare(source[best])}`;
  });
  return `Attention map. Each English word looks most at one German word: ${pairs.join(", ")}.`;
}

const original = typed.textContent;
let shown = null;

function show(found) {
  shown = found;
  showTyped(found.source);
  const buttons = found.target.map((word, i) =>
    element("button", { type: "button", class: "word", "data-row": i }, [word]));
  written.replaceChildren(...spaced(buttons));
  figure.replaceChildren(...(found.target.length ? [drawMap(found)] : []));
  inside.hash = found.sentence === original ? "" : new URLSearchParams({ text: found.sentence });
  demo.classList.remove("stale");
}

/** The words behind the box, which light up; spaces as they were typed. */
function showTyped(source) {
  const parts = [];
  let rest = box.value;
  source.forEach((word, i) => {
    const at = rest.indexOf(word);
    if (at < 0) return; // an unknown piece, or a letter composed differently
    parts.push(rest.slice(0, at),
      element("span", { class: "word", "data-column": i, lang: "de" }, [word]));
    rest = rest.slice(at + word.length);
  });
  typed.replaceChildren(...parts, `${rest}\u200b`); // a last line break has a height, too
}

// --- Typing -------------------------------------------------------------------------------
let busy = false, timer;

/** Translate what is in the box, greedily at once, then by beam search. */
async function translate(beamSize = 1) {
  clearTimeout(timer);
  const text = box.value, no = refusal(text);
  demo.classList.toggle("stale", (shown?.sentence ?? original) !== text);
  if (no) return say(no);
  if (busy) return; // it looks at the box again when it is done
  busy = true;
  try {
    await load();
    bar.hidden = true;
    const started = performance.now(), found = await engine.ask("look", { text, beamSize });
    demo.dataset.milliseconds = Math.round(performance.now() - started);
    if (!refusal(box.value)) {
      if (box.value === text || !shown) show(found);
      say(warning(text) ?? "");
    }
    demo.dataset.translated = `${beamSize} ${text}`;
    if (box.value === text && beamSize === 1) timer = setTimeout(translate, PAUSE, 4);
  } catch (error) {
    if (error.expected) say(error.message);
  } finally {
    busy = false;
  }
  if (box.value !== text && engine.loaded) translate();
}

box.addEventListener("focus", () => translate(shown ? 1 : 4), { once: true });
box.addEventListener("input", () => {
  typed.replaceChildren(`${box.value.slice(0, 4 * LONGEST)}\u200b`);
  translate();
});
box.addEventListener("keydown", (event) => {
  if (event.key === "Enter") event.preventDefault(); // it is one sentence
});

// --- The word pointed at ------------------------------------------------------------------
let asked;

demo.addEventListener("point", async ({ detail: row }) => {
  asked = row;
  const found = shown;
  if (row === undefined || !found || demo.classList.contains("stale")) {
    weighed.hidden = true;
    hint.hidden = false;
    return;
  }
  found.known ??= {};
  const { src, output, rows } = found;
  found.known[row] ??= engine.ask("alternatives", { found: { src, output, rows }, row: Number(row) });
  const words = await found.known[row];
  if (asked !== row || shown !== found) return;
  const percent = (p) => (p < 0.01 ? "under 1 %" : `${Math.round(100 * p)} %`);
  const items = words.map(({ text, probability, chosen }) => {
    const word = text || "(the end)";
    return [element(chosen ? "strong" : "span", {}, [word]), ` ${percent(probability)}`];
  });
  weighed.replaceChildren("Here the model weighed: ",
    ...items.flatMap((item, i) => (i ? [", ", ...item] : item)), ".");
  weighed.hidden = false;
  hint.hidden = true;
});

prepare();
