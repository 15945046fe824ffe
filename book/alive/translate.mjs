// The browser's translator on the command line, for tests and measurements.

import { readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { InputError, Translator } from "./translator.mjs";

const SHIPPED = fileURLToPath(new URL("../../annotated_transformer/pretrained", import.meta.url));
const HELP = `usage: node book/alive/translate.mjs [options] < german.txt > english.txt

Translates standard input, one sentence a line, with the engine of the book's pages:
one line out for each line in, blank if the line is blank or too long. It runs one
sentence at a time in one thread, in single precision, as a browser does.

  --model FOLDER  settings.json, tokenizer.model and model.safetensors
                  [default: the model that ships]
  --beam N        hypotheses kept at each step [default: 1, which is greedy]
  --alpha X       length penalty of beam search [default: the model's own]
  --timings       print one JSON object on stderr at the end: sentences; load_seconds
                  (files read, weights made single precision); first_word_seconds
                  (greedy, from the first sentence's text to its first token, before
                  anything has run; null with a beam); first_sentence_seconds;
                  seconds (all sentences, without loading); sentences_per_second
  --help          print this`;

const OPTIONS = {
  model: { type: "string", default: SHIPPED },
  beam: { type: "string", default: "1" },
  alpha: { type: "string" },
  timings: { type: "boolean", default: false },
  help: { type: "boolean", default: false },
};

/** A number of an option, or an error that names both. */
function number(name, text, fits) {
  if (!text.trim() || !fits(Number(text))) throw new InputError(`--${name} ${text}: not a value that it can have`);
  return Number(text);
}

/** The translator of a folder. */
export function load(folder) {
  const read = (name) => {
    const bytes = readFileSync(join(folder, name));
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  };
  return new Translator({
    settings: JSON.parse(readFileSync(join(folder, "settings.json"), "utf8")),
    tokenizer: read("tokenizer.model"),
    weights: read("model.safetensors"),
  });
}

function main() {
  const { values } = parseArgs({ options: OPTIONS });
  if (values.help) return console.log(HELP);
  const beamSize = number("beam", values.beam, (n) => Number.isInteger(n) && n >= 1 && n <= 256);
  const options = { beamSize };
  if (values.alpha !== undefined) {
    options.alpha = number("alpha", values.alpha, (x) => x >= 0 && x <= 10);
  }
  const lines = readFileSync(0, "utf8").split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop();
  const clock = () => performance.now() / 1000;
  const opened = clock(), translator = load(values.model), started = clock();
  let firstWord = null, firstSentence = null;
  options.onToken = () => { firstWord ??= clock() - started; };
  lines.forEach((line, i) => {
    let translation = "";
    try {
      translation = translator.translate(line, options);
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      console.error(`line ${i + 1}: ${error.message}`);
      process.exitCode = 2;
    }
    writeAll(`${translation}\n`);
    firstSentence ??= clock() - started;
  });
  const seconds = clock() - started;
  if (values.timings) {
    console.error(JSON.stringify({
      sentences: lines.length,
      load_seconds: started - opened,
      first_word_seconds: firstWord,
      first_sentence_seconds: firstSentence,
      seconds,
      sentences_per_second: lines.length / seconds,
    }));
  }
}

/** Write to standard output, whatever it is: a pipe may take a part at a time. */
function writeAll(text) {
  let rest = Buffer.from(text);
  while (rest.length) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    main();
  } catch (error) {
    if (error.code === "EPIPE") process.exit(0);
    console.error(error.message);
    process.exit(2);
  }
}
