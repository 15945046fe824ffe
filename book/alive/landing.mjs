// The landing page: the sentence can be edited, and the model translates as one types.
//
// The weights are fetched when the sentence is first touched. Until they have come, the
// page shows what it was built with.

import { LONGEST, refusal, warning } from "./hints.mjs";

const SVG = "http://www.w3.org/2000/svg";
const PAUSE = 350; // milliseconds without a key, before the slower search
const demo = document.querySelector(".demo");
const typed = demo.querySelector(".sentence.typed");
const written = demo.querySelector(".sentence.written");
const figure = demo.querySelector("figure");
const hint = demo.querySelector(".hint");

/** An element with attributes and children; text stays text. */
function element(name, attributes = {}, children = [], space = undefined) {
  const made = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Words with spaces between them. */
function spaced(elements) {
  return elements.flatMap((each, i) => (i ? [" ", each] : [each]));
}

// --- The worker -------------------------------------------------------------------------
let worker, loaded;
const waiting = new Map();

function ask(what, of) {
  const id = ask.next = (ask.next ?? 0) + 1;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, what, of });
  });
}

function load() {
  if (loaded) return loaded;
  worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => {
    if (data.progress) return showProgress(data.progress);
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error === undefined) resolve(data.result);
    else reject(Object.assign(new Error(data.error), { expected: data.expected }));
  };
  worker.onerror = () => {
    for (const { reject } of waiting.values()) reject(new Error("the engine did not start"));
    waiting.clear();
  };
  say("Loading the model …");
  loaded = ask("load");
  loaded.catch(() => {
    loaded = undefined; // the next key tries again
    worker.terminate();
    bar.hidden = true;
    say("The model could not be loaded. Type again to try once more.");
  });
  return loaded;
}

function showProgress({ loaded: bytes, total }) {
  const size = (n) => (n / 1e6).toFixed(1);
  bar.hidden = false;
  if (total) bar.value = bytes / total;
  const text = `Loading the model, ${total ? `${size(total)} MB, once` : `${size(bytes)} MB so far`}`;
  if (note.textContent !== text) say(text);
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
  const svg = (name, attributes, children) => element(name, attributes, children, SVG);
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
    const started = performance.now(), found = await ask("look", { text, beamSize });
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
  if (box.value !== text && loaded) translate();
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
  found.known[row] ??= ask("alternatives", { found: { src, output, rows }, row: Number(row) });
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
