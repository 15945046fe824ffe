// Decoding (§6.1): greedy and beam search, equal to the package's, and sampling.

import { logSoftmax, topK } from "./arithmetic.mjs";
import { BOS, EOS, PAD } from "./tokenizer.mjs";

const EXTRA_LENGTH = 50; // the paper stops at input length + 50 (§6.1)

/** Padding and the start token are never an output. */
function forbidSpecials(logits) {
  logits[PAD] = logits[BOS] = -Infinity;
  return logits;
}

/** Take the likeliest next token, every time. `onToken` hears of each. */
export function greedySearch(model, src, { onToken = () => {} } = {}) {
  const cache = model.start(src), limit = src.length + EXTRA_LENGTH, past = [[]];
  const output = [];
  for (let id = BOS, step = 0; step < limit; step++) {
    past[0].push(step);
    [id] = topK(forbidSpecials(model.step([id], [step], cache, past)), 1);
    if (id === EOS) break;
    output.push(id);
    onToken(id);
  }
  return output;
}

/** Probabilities of the next token: a temperature, and the tail cut behind `topK`. */
export function distribution(logits, { temperature = 1, topK: k = null } = {}) {
  const row = forbidSpecials(logits.map((value) => value / temperature));
  if (k !== null) {
    const worst = row[topK(row, k).at(-1)];
    row.forEach((value, i) => { if (value < worst) row[i] = -Infinity; });
  }
  return logSoftmax(row).map(Math.exp);
}

/** Draw each next token by its probability; `random` gives numbers from 0 up to 1. */
export function sample(model, src, { temperature = 1, topK: k = null, random = Math.random } = {}) {
  const cache = model.start(src), limit = src.length + EXTRA_LENGTH, past = [[]];
  const output = [];
  for (let id = BOS, step = 0; step < limit; step++) {
    past[0].push(step);
    const chances = distribution(model.step([id], [step], cache, past), { temperature, topK: k });
    let rest = random();
    id = chances.findIndex((chance) => (rest -= chance) < 0);
    if (id < 0) [id] = topK(chances, 1); // the chances added up to a little less than 1
    if (id === EOS) break;
    output.push(id);
  }
  return output;
}

/** Divides a hypothesis's log-probability, so that length costs less (§6.1). */
export function lengthPenalty(length, alpha) {
  return ((5 + length) / 6) ** alpha;
}

/**
 * Keep the likeliest beginnings, and return the best ending (§6.1): the one with the
 * highest log-probability over the length penalty. The beams share one cache; `past`
 * lists the places in it that hold a beam's own beginning. `onStep` hears of each step's
 * candidates, and of those that are kept.
 */
export function beamSearch(
  model, src, { beamSize = 4, alpha = 0.6, onStep = () => {} } = {},
) {
  const cache = model.start(src), limit = src.length + EXTRA_LENGTH;
  const vocabSize = model.config.vocab_size;
  let beams = [{ id: BOS, tokens: [], logProb: 0, past: [] }];
  let best = { score: -Infinity, tokens: [] };
  for (let step = 0; step < limit; step++) {
    const past = beams.map((beam, i) => [...beam.past, cache.length + i]);
    const ids = beams.map((beam) => beam.id);
    const logits = model.step(ids, ids.map(() => step), cache, past);
    const candidates = beams.flatMap((beam, i) => {
      const row = logits.subarray(i * vocabSize, (i + 1) * vocabSize);
      const logProbs = logSoftmax(forbidSpecials(row));
      return topK(logProbs, beamSize).map((id) => ({
        id,
        tokens: [...beam.tokens, id],
        logProb: beam.logProb + logProbs[id],
        past: past[i],
      }));
    });
    const kept = topK(candidates.map((c) => c.logProb), beamSize).map((i) => candidates[i]);
    onStep({ candidates, kept });
    const ends = (beam) => beam.id === EOS || step + 1 >= limit;
    for (const { tokens, logProb } of kept.filter(ends)) {
      const score = logProb / lengthPenalty(step + 1, alpha);
      if (score > best.score) best = { score, tokens: tokens.filter((id) => id !== EOS) };
    }
    beams = kept.filter((beam) => !ends(beam));
    // Log-probabilities only fall: a beginning cannot reach more than this.
    if (!beams.length || beams[0].logProb / lengthPenalty(limit, alpha) <= best.score) break;
  }
  return best.tokens;
}
