// Model and tokenizer: text in, text out, and where each word looked.

import { logSoftmax, topK } from "./arithmetic.mjs";
import { Transformer } from "./model.mjs";
import { readSafetensors } from "./safetensors.mjs";
import { beamSearch, greedySearch } from "./search.mjs";
import { BOS, EOS, PAD, Tokenizer } from "./tokenizer.mjs";

const SPACE = "\u2581";
const LONGEST_WORD = 8; // pieces that an alternative may have

/** What keeps a text from being translated, in words for its writer. */
export class InputError extends Error {}

export class Translator {
  /** From the files that ship with the package: settings, and the bytes of the others. */
  constructor({ settings, tokenizer, weights }) {
    this.tokenizer = new Tokenizer(tokenizer);
    this.model = new Transformer(settings.model, readSafetensors(weights));
    this.alpha = settings.search?.alpha ?? 0.6;
  }

  /** Source ids of one sentence; throws InputError if it has too many. */
  encode(text) {
    const ids = this.tokenizer.encode(text), longest = this.model.config.max_length;
    if (ids.length > longest) {
      const count = ids.length.toLocaleString("en");
      throw new InputError(`a sentence of ${count} tokens is longer than the ` +
        `${longest.toLocaleString("en")} that the model reads: split it`);
    }
    return ids;
  }

  /** The ids of a translation: by beam search, or greedily with a beam of 1. */
  search(src, { beamSize = 4, alpha = this.alpha, onToken } = {}) {
    if (src.length === 1) return []; // a blank sentence stays blank
    if (beamSize === 1) return greedySearch(this.model, src, { onToken });
    return beamSearch(this.model, src, { beamSize, alpha });
  }

  /** The translation of one sentence. */
  translate(text, options) {
    return this.tokenizer.decode(this.search(this.encode(text), options));
  }

  /** Every tensor of one pass over a sentence and its translation, by name. */
  record(src, output) {
    const tensors = {};
    this.model.forward(src, [BOS, ...output], (name, data, shape) => {
      tensors[name] = { data: data.slice(), shape };
    });
    return tensors;
  }

  /**
   * A sentence, its translation, and each English word's weight on each German one:
   * cross-attention of the last layer, the mean of its heads. Over the pieces of a word,
   * weights are summed if it is German and averaged if it is English.
   */
  look(text, options) {
    const src = this.encode(text), output = this.search(src, options);
    const german = src.slice(0, -1).map((id) => this.tokenizer.piece(id));
    const english = output.map((id) => this.tokenizer.piece(id));
    const name = `decoder.layers.${this.model.config.n_layers - 1}.cross_attention.weights`;
    let maps;
    this.model.forward(src, [BOS, ...output], (found, data, shape) => {
      if (found === name) maps = { data, shape };
    });
    const [heads, queries, keys] = maps.shape;
    const at = (row, column) => {
      let sum = 0;
      for (let head = 0; head < heads; head++) {
        sum += maps.data[(head * queries + row) * keys + column];
      }
      return sum / heads;
    };
    const rows = words(english), columns = words(german);
    return {
      sentence: text,
      translation: this.tokenizer.decode(output),
      source: columns.map((word) => written(german, word)),
      target: rows.map((word) => written(english, word)),
      weights: rows.map((row) => columns.map((column) => {
        let sum = 0;
        for (const i of row) for (const j of column) sum += at(i, j);
        return sum / row.length;
      })),
      src,
      output,
      rows,
    };
  }

  /**
   * What the model weighed where a word of its translation stands, the likeliest first:
   * words with their probabilities, given the source and the words before.
   */
  alternatives({ src, output, rows }, row, count = 5) {
    const start = rows[row][0];
    const cache = this.model.start(src), prefix = [BOS, ...output.slice(0, start)];
    const places = prefix.map((_, i) => i);
    const past = places.map((i) => places.slice(0, i + 1));
    const logProbs = this.lastRow(this.model.step(prefix, places, cache, past));
    // Each beginning of a word is finished greedily.
    const found = topK(logProbs, count).map((id) => {
      const ids = [id];
      let logProb = logProbs[id], seen = [...places];
      while (id !== EOS && ids.length < LONGEST_WORD) {
        seen.push(cache.length);
        const next = this.lastRow(
          this.model.step([ids.at(-1)], [start + ids.length], cache, [seen]));
        const [best] = topK(next, 1), piece = this.tokenizer.piece(best);
        if (best === EOS || piece.startsWith(SPACE) || !/[\p{L}\p{N}]/u.test(piece)) break;
        ids.push(best);
        logProb += next[best];
      }
      const text = id === EOS ? "" : this.tokenizer.decode(ids).trim();
      const chosen = ids.every((piece, i) => piece === output[start + i]);
      return { text, probability: Math.exp(logProb), chosen };
    });
    found.sort((a, b) => b.probability - a.probability);
    const texts = found.map(({ text }) => text); // other pieces can spell the same word
    return found.filter(({ text }, i) => texts.indexOf(text) === i);
  }

  /** The log-probabilities after the last token. */
  lastRow(logits) {
    const row = logits.slice(-this.model.config.vocab_size);
    row[PAD] = row[BOS] = -Infinity;
    return logSoftmax(row);
  }
}

/** Which pieces make up each word; a mark that follows a word belongs to it. */
export function words(pieces) {
  const found = [];
  pieces.forEach((piece, i) => {
    if (piece.startsWith(SPACE) || !found.length) found.push([]);
    found.at(-1).push(i);
  });
  return found;
}

/** A word as it is written. */
function written(pieces, word) {
  return word.map((i) => pieces[i]).join("").replaceAll(SPACE, "").trim();
}
