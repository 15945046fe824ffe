// What tests/test_alive.py asks of the browser's engine: one JSON object in, one out.

import { readFileSync } from "node:fs";
import { load } from "../book/alive/translate.mjs";
import { BOS, normalize } from "../book/alive/tokenizer.mjs";

const asked = JSON.parse(readFileSync(0, "utf8"));
const translator = load(asked.model), { model, tokenizer } = translator;
const answers = {
  normalized: (text) => normalize(text),
  ids: (text) => tokenizer.encode(text),
  text: (ids) => tokenizer.decode(ids),
  searched: ({ src, beamSize }) => translator.search(src, { beamSize }),
  logits: ({ src, tgt }) => [...model.forward(src, [BOS, ...tgt])],
  tensors: ({ src, tgt }) => Object.fromEntries(
    Object.entries(translator.record(src, tgt)).map(
      ([name, { data, shape }]) => [name, { data: [...data], shape }])),
  look: (text) => translator.look(text),
  alternatives: ({ text, row }) => translator.alternatives(translator.look(text), row),
};
const answer = answers[asked.what];
process.stdout.write(JSON.stringify(asked.of.map((item) => answer(item))));
