// "The Transformer, alive": the state lives in the address, the model in a worker, and
// whatever changes either draws the page again.

import { Engine, progressOf } from "../client.mjs";
import { element } from "../dom.mjs";
import { refusal, warning } from "../hints.mjs";
import { repaint } from "./colors.mjs";
import { Figure } from "./figure.mjs";
import { Guide } from "./guide.mjs";
import { panel } from "./panels.mjs";
import { inWords, Play } from "./play.mjs";
import { FIRST, fit, question, read, SENTENCE, write } from "./state.mjs";
import { MEASURES, QUESTIONS } from "./tour.mjs";
import { parts, View } from "./view.mjs";
import { label, percent } from "./words.mjs";

const PAUSE = 300; // milliseconds without a key
const NARROW = 992, TOP = 64, MARGIN = 10; // pixels: one column below; the page's header; room below a box
const root = document.querySelector("#alive-look");
const known = new Map(
  [...document.querySelectorAll("[data-boxes]")].flatMap((entry) =>
    entry.dataset.boxes.split(" ").map((box) => [box, entry])));

// `state` is what the address says; `shown`, what of it the run on the page reaches.
let state = read(location.hash.includes("=") ? location.hash : FIRST), shown = state, run = null, about = null, view = null;
let busy = false, failed = false, asked = "", going = false;

// --- The parts of the page ------------------------------------------------------------------
const engine = new Engine({
  onProgress(progress) {
    const { text, share } = progressOf(progress);
    bar.hidden = false;
    if (share !== null) bar.value = share;
    say(text);
  },
  onFail() {
    failed = true;
    bar.hidden = true;
    say("The model could not be loaded. Type again to try once more.");
  },
});
const box = element("textarea", {
  id: "alive-text", lang: "de", rows: "1", spellcheck: "false", autocomplete: "off", maxlength: "20000",
});
const note = element("p", { class: "note", role: "status" });
const bar = element("progress", { max: "1", value: "0", hidden: true, "aria-label": "Model loaded" });
const ribbon = (lang, words) => element("div", { class: "ribbon", lang, role: "group", "aria-label": words });
const german = ribbon("de", "German pieces"), english = ribbon("en", "English pieces, one for each decoding step");
const slider = element("input", { type: "range", min: "0", max: "0", value: "0", id: "alive-step" });
const told = element("output", { class: "told", for: "alive-step", "aria-live": "off" });
const inside = element("section", { id: "alive-panel", "aria-labelledby": "alive-panel-title" });
const changes = element("p", { class: "changes", hidden: true });
const figure = new Figure(open);
const play = new Play(document.querySelector("#alive-play"), set);
const guide = new Guide({ arrive: goThere, leave: () => (figure.buttons.get(state.box) ?? slider).focus() });

function say(text) {
  if (note.textContent !== text) note.textContent = text;
}

function build() {
  const step = (by, words, sign) => element("button", {
    type: "button", "aria-label": words, click: () => goTo(shown.step + by),
  }, sign);
  root.replaceChildren(
    element("div", { class: "type" }, [
      element("label", { for: "alive-text" }, "A German sentence, a caption for example"), box, note, bar,
    ]),
    element("div", { class: "ribbons" }, [
      element("span", { class: "name" }, "German"), german,
      element("span", { class: "name" }, "English"), english,
    ]),
    element("div", { class: "steps" }, [
      element("label", { for: "alive-step" }, "Decoding step"),
      step(-1, "One step back", "‹"), slider, step(1, "One step on", "›"), told,
    ]),
    changes,
    element("div", { class: "inside" }, [
      element("div", { class: "whole" }, [figure.root, element("p", { class: "legend" },
        "The strip in a box is the vector that leaves it now, blue below zero, orange above: on the left of the German piece " +
        "chosen above (dark), on the right of the newest English piece. The English piece that it writes is framed above.")]),
      inside,
    ]),
  );
  closed();
}

/** What stands beside the figure while no box is open. */
function closed() {
  inside.replaceChildren(element("h3", { id: "alive-panel-title" }, "Open a box"), element("p", {},
    "Choose any box of the figure: it opens to the numbers that this sentence made there, at this decoding step."));
}

// --- The state ------------------------------------------------------------------------------
/** Change the state, and with it the address and the page. */
function set(patch) {
  state = { ...state, ...patch };
  history.replaceState(null, "", write(state));
  refresh();
}

/** Draw what is known; ask the model where the question has changed. */
function refresh() {
  if (box.value !== state.text) box.value = state.text;
  const wanted = JSON.stringify(question(state));
  if (wanted !== asked) think();
  if (run) draw();
}

async function think() {
  const no = refusal(state.text);
  stale(Boolean(run));
  if (no) {
    asked = "";
    return say(no);
  }
  if (busy) return; // it looks again when it is done
  busy = true;
  const of = question(state), wanted = JSON.stringify(of);
  try {
    await engine.load();
    failed = false;
    bar.hidden = true;
    about ??= await engine.ask("about");
    const started = performance.now(), found = await engine.ask("run", of);
    root.dataset.milliseconds = Math.round(performance.now() - started);
    asked = wanted;
    run = { ...found, question: of, number: (run?.number ?? 0) + 1 };
    say(warning(of.text) ?? "");
  } catch (error) {
    asked = wanted;
    if (error.expected) say(error.message);
    else if (!failed) throw error;
  } finally {
    busy = false;
  }
  if (failed) return void (asked = "");
  const now = JSON.stringify(question(state));
  stale(now !== asked);
  if (run) draw();
  if (now !== asked) think();
  else {
    if (going) goThere();
    going = false;
    tour();
  }
}

/** What is shown is of an earlier question. */
function stale(on) {
  for (const part of [root, play.root]) part.classList.toggle("stale", on);
}

/** Move through the decoding steps. */
function goTo(step) {
  if (run) set({ step: Math.max(0, Math.min(run.next.length - 1, step)), row: null, col: null });
}

/** Open a box, or close it if it is open. */
function open(name) {
  if (state.box === name) return set({ box: null });
  set({ box: name, row: null, col: null });
  const title = inside.querySelector("h3");
  title.focus({ preventScroll: true });
  const { top } = inside.getBoundingClientRect();
  if (top > innerHeight * 0.7 || top < 0) inside.scrollIntoView({ block: "start" });
}

// --- Drawing --------------------------------------------------------------------------------
function draw() {
  const last = run.next.length - 1;
  shown = fit(state, run, about.config);
  view = new View({ state: shown, run, about, set, ask: (what, of) => engine.ask(what, of) });
  keepFocus(() => {
    drawRibbons();
    figure.show({ state: shown, run, about, outputOf, isOff });
    drawPanel();
    play.show({ state: shown, run, about });
  });
  slider.max = last;
  slider.value = shown.step;
  const before = run.next.slice(0, shown.step).map(({ piece }) => piece.replaceAll("\u2581", " ")).join("").trim();
  const words = `Step ${shown.step + 1} of ${last + 1}: after ${before ? `“${before}”` : "the start"}, ` +
    `the decoder writes “${label(run.next[shown.step].piece)}”.`;
  told.textContent = words;
  slider.setAttribute("aria-valuetext", words);
  const off = [...state.off.map(inWords), ...(state.positions ? [] : ["positions"]), ...(state.mask ? [] : ["the mask"])];
  changes.hidden = !off.length;
  changes.textContent = `Switched off: ${off.join("; ")}.`;
  fadeAll();
  root.dataset.shown = run.question.text;
}

/** Redraw, and give the focus back to the control that had it. */
function keepFocus(redraw) {
  const held = document.activeElement?.dataset?.key;
  const unfolded = [...document.querySelectorAll("details[data-key][open]")].map((each) => each.dataset.key);
  redraw();
  for (const key of unfolded) {
    const found = document.querySelector(`details[data-key="${CSS.escape(key)}"]`);
    if (found) found.open = true;
  }
  if (held) document.querySelector(`[data-key="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
}

function drawRibbons() {
  const piece = (token, attributes) => element("button", {
    type: "button", class: token.piece.startsWith("\u2581") ? "token starts" : "token", ...attributes,
  }, label(token.piece));
  german.replaceChildren(...view.src.map((token, i) => piece(token, {
    "data-token": token.token, "data-key": token.token, "aria-pressed": String(i === shown.token),
    click: () => set({ token: i, ...(state.box?.startsWith("encoder") ? { row: null, col: null } : {}) }),
  })));
  english.replaceChildren(...view.next.map((token, i) => {
    const made = piece(token, {
      "data-token": token.token, "data-key": token.token, "aria-pressed": String(i === shown.step),
      click: () => goTo(i),
    });
    if (i > shown.step) made.classList.add("later");
    return made;
  }));
}

/** The vector that leaves a box, for the strip inside it. */
function outputOf(name) {
  const { stack } = parts(name), values = view.row(view.output(name), stack === "encoder" ? shown.token : shown.step);
  return { values, signed: true };
}

function isOff(name) {
  const { stack, part, place } = parts(name);
  if (place === undefined && part === "positions") return !state.positions;
  if (place || !["self", "cross", "ffn"].includes(part)) return false;
  return view ? view.isOff(view.module(stack, part)) : false;
}

function drawPanel() {
  const entry = known.get(state.box);
  if (!entry) return closed();
  const { stack, part } = parts(state.box), layered = ["self", "cross", "ffn"].includes(part);
  const where = layered ? `${stack}, layer ${shown.layer}` : stack === "encoder" || stack === "decoder" ? stack : "";
  const title = element("h3", { id: "alive-panel-title", tabindex: "-1" }, [
    entry.querySelector("dt").textContent, where ? element("span", { class: "where" }, ` ${where}`) : null,
  ]);
  const links = element("p", { class: "links" }, [...entry.querySelectorAll("dd.links > *")].map((link) => link.cloneNode(true)));
  const layers = layered ? [element("div", { class: "choices", role: "group", "aria-label": "Layer" },
    Array.from({ length: about.config.n_layers }, (_, i) => element("button", {
      type: "button", "data-key": `layer.${i}`, "aria-pressed": String(i === shown.layer),
      click: () => set({ layer: i, row: null, col: null }),
    }, `Layer ${i}`)))] : [];
  inside.replaceChildren(
    element("button", {
      type: "button", class: "close", "aria-label": "Close this box", "data-key": "close",
      click: () => { const { box: name } = state; set({ box: null }); figure.buttons.get(name).focus(); },
    }, "×"),
    title, element("div", { class: "about" }, [element("p", { class: "says" }, entry.querySelector("dd").textContent), links]), ...layers, ...panel(view, state.box),
  );
}

// --- A token lights up wherever it appears ---------------------------------------------------
function light(tokens) {
  for (const lit of document.querySelectorAll(".alive .lit")) lit.classList.remove("lit");
  for (const token of tokens.filter(Boolean)) {
    for (const each of document.querySelectorAll(`.alive .token[data-token="${CSS.escape(token)}"]`)) each.classList.add("lit");
  }
}

for (const [enter, leave] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
  document.addEventListener(enter, ({ target }) => {
    const place = target.closest?.(".alive [data-token]");
    if (place) light([place.dataset.token, place.dataset.also]);
  });
  document.addEventListener(leave, ({ target }) => { if (target.closest?.(".alive [data-token]")) light([]); });
}
document.addEventListener("point", ({ detail }) => light([detail]));

// --- Typing, keys, links -----------------------------------------------------------------------
let timer;
box.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(() => set({ text: box.value, step: 0, token: 0, row: null, col: null }), PAUSE);
});
box.addEventListener("keydown", (event) => { if (event.key === "Enter") event.preventDefault(); });
slider.addEventListener("input", () => goTo(Number(slider.value)));
inside.addEventListener("keydown", (event) => {
  if (event.key === "Escape") inside.querySelector(".close")?.click();
});
addEventListener("hashchange", () => {
  if (/^#[^=]+$/.test(location.hash)) return; // a heading of the page
  state = read(location.hash);
  refresh();
  going = JSON.stringify(question(state)) !== asked; // and once more when it is answered
  goThere();
});

/** What scrolls sideways fades where it goes on. */
function fade(part) {
  part.classList.toggle("cut", part.scrollWidth - part.clientWidth - part.scrollLeft > 2);
}
const fadeAll = () => document.querySelectorAll(".alive .scroll").forEach(fade);
addEventListener("resize", fadeAll);
document.addEventListener("drawn", fadeAll);
document.addEventListener("toggle", fadeAll, true);
document.addEventListener("scroll", ({ target }) => { if (target.matches?.(".scroll")) fade(target); }, true);

document.addEventListener("click", ({ target }) => { // once more to where one has been
  const link = target.closest?.('.tour a[href^="#"], .guide a[href^="#"]');
  if (!link) return;
  if (link.closest(".tour")) guide.show(link.closest("li"));
  else if (link.hash === location.hash) goThere();
});

/** Scroll to what the address is about, and to the words of the tour beside it. */
function goThere() {
  const playing = state.at === "play", narrow = innerWidth <= NARROW;
  guide.put(playing ? play.root : inside);
  const words = guide.root.hidden ? null : guide.root;
  if (playing) return void (words ?? play.root.querySelector(".future") ?? play.root).scrollIntoView({ block: "start" });
  if (narrow) return void (words ?? (state.box ? inside : root)).scrollIntoView({ block: "start" });
  (words ?? root.querySelector(".ribbons")).scrollIntoView({ block: "start" });
  const open = figure.buttons.get(state.box)?.getBoundingClientRect(), row = inside.querySelector("tr.current")?.getBoundingClientRect();
  if (!open) return;
  const below = Math.max(open.bottom, row?.bottom ?? 0) + MARGIN - innerHeight;
  if (below > 0) scrollBy({ top: Math.min(below, open.top - TOP), behavior: "instant" });
}
new MutationObserver(() => {
  repaint();
  if (run) draw();
}).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });

// --- The tour's numbers --------------------------------------------------------------------------
let toured = false;

async function tour() {
  const places = [...document.querySelectorAll("[data-measure]")];
  if (toured || !places.length) return;
  toured = true;
  const ask = (rest = {}) => engine.ask("run", { text: SENTENCE, ...rest });
  const found = await ask(), more = {};
  more.pieces = Object.fromEntries((await engine.ask("embeddings", likely(found))).map(({ id, piece }) => [id, piece]));
  for (const [name, of] of Object.entries(QUESTIONS)) more[name] = await ask(of);
  for (const place of places) place.textContent = MEASURES[place.dataset.measure](found, more);
  guide.refresh();
  root.dataset.toured = "yes";
}

/** Ids of the likeliest pieces at the tour's word. */
function likely({ tensors: { logits: { data, shape: [rows, width] } } }) {
  const ids = new Set();
  for (let row = 0; row < rows; row++) {
    const order = [...data.subarray(row * width, (row + 1) * width)].map((value, id) => [value, id]);
    order.sort((a, b) => b[0] - a[0]).slice(0, 5).forEach(([, id]) => ids.add(id));
  }
  return [...ids];
}

// --- The start -----------------------------------------------------------------------------------
build();
refresh();
if (state.at) goThere();
