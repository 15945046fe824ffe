// What tests/test_alive.py asks of the browser's engine: one JSON object in, one out.

import { readFileSync } from "node:fs";
import { embeddings, run, sublayers } from "../book/alive/experiment.mjs";
import { BOXES } from "../book/alive/page/figure.mjs";
import { fit, read, write } from "../book/alive/page/state.mjs";
import { MEASURES, QUESTIONS } from "../book/alive/page/tour.mjs";
import { View } from "../book/alive/page/view.mjs";
import { weighed } from "../book/alive/page/words.mjs";
import { distribution } from "../book/alive/search.mjs";
import { load } from "../book/alive/translate.mjs";
import { BOS, normalize } from "../book/alive/tokenizer.mjs";

const asked = JSON.parse(readFileSync(0, "utf8"));
const translator = load(asked.model), { model, tokenizer } = translator;
const about = { config: model.config };
const plain = (tensors) => Object.fromEntries(Object.entries(tensors).map(
  ([name, { data, shape }]) => [name, { data: [...data], shape }]));
const answers = {
  normalized: (text) => normalize(text),
  ids: (text) => tokenizer.encode(text),
  text: (ids) => tokenizer.decode(ids),
  searched: ({ src, beamSize }) => translator.search(src, { beamSize }),
  logits: ({ src, tgt }) => [...model.forward(src, [BOS, ...tgt])],
  tensors: ({ src, tgt }) => plain(translator.record(src, tgt)),
  look: (text) => translator.look(text),
  alternatives: ({ text, row }) => translator.alternatives(translator.look(text), row),
  // Of the page "alive":
  run: ({ names = [], ...of }) => {
    const { tensors, open, ...found } = run(translator, of);
    const kept = names.filter((name) => tensors[name]).map((name) => [name, tensors[name]]);
    return { ...found, tensors: plain(Object.fromEntries(kept)), open: open && plain({ logits: open.logits }) };
  },
  distribution: ({ logits, ...options }) => [...distribution(Float32Array.from(logits), options)],
  sublayers: () => sublayers(model.config),
  boxes: () => BOXES.map(({ name }) => name),
  outputs: ({ text, layer }) => {
    const found = run(translator, { text });
    const view = new View({ state: { ...read(""), layer }, run: found, about });
    return BOXES.map(({ name }) => [name, view.output(name), view.output(name) in found.tensors]);
  },
  weighed: (value) => weighed(value),
  state: (hash) => ({ state: read(hash), hash: write(read(hash)) }),
  fitted: ({ hash, text }) => fit(read(hash), run(translator, { text }), model.config),
  measures: ({ text, names }) => {
    const ids = Array.from({ length: model.config.vocab_size }, (_, id) => id);
    const pieces = Object.fromEntries(embeddings(translator, ids).map(({ id, piece }) => [id, piece]));
    const more = Object.entries(QUESTIONS).map(([each, of]) => [each, run(translator, { text, ...of })]);
    const found = run(translator, { text });
    return names.map((name) => MEASURES[name](found, { pieces, ...Object.fromEntries(more) }));
  },
};
const answer = answers[asked.what];
process.stdout.write(JSON.stringify(asked.of.map((item) => answer(item))));
