// The model beside the page: it loads the weights and translates, and the page stays free.
//
// A message { id, what, of } is answered by { id, result } or { id, error }; while the
// weights come, { progress } tells how many bytes have, and of how many.

import { about, embeddings, run } from "./experiment.mjs";
import { InputError, Translator } from "./translator.mjs";

const FOLDER = new URL("model/", import.meta.url); // put beside this file by the book
let translator;

async function fetchBytes(name, onProgress = () => {}) {
  const response = await fetch(new URL(name, FOLDER));
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  const total = Number(response.headers.get("Content-Length")) || null;
  const chunks = [];
  let loaded = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    loaded += value.length;
    onProgress({ loaded, total });
  }
  return new Blob(chunks).arrayBuffer();
}

const answers = {
  async load() {
    const report = (progress) => postMessage({ progress });
    const [settings, tokenizer, weights] = await Promise.all([
      fetchBytes("settings.json"),
      fetchBytes("tokenizer.model"),
      fetchBytes("model.safetensors", report),
    ]);
    const text = new TextDecoder().decode(settings);
    translator = new Translator({ settings: JSON.parse(text), tokenizer, weights });
  },
  look: ({ text, beamSize }) => translator.look(text, { beamSize }),
  alternatives: ({ found, row }) => translator.alternatives(found, row),
  about: () => about(translator),
  run: (asked) => run(translator, asked),
  embeddings: (ids) => embeddings(translator, ids),
};

self.onmessage = async ({ data: { id, what, of } }) => {
  try {
    postMessage({ id, result: await answers[what](of) });
  } catch (error) {
    postMessage({ id, error: error.message, expected: error instanceof InputError });
  }
};
