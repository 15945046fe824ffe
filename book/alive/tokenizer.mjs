// From text to ids and back: SentencePiece's byte-pair encoding, read from its own file.

export const PAD = 0, BOS = 1, EOS = 2, UNK = 3;
const SPACE = "\u2581", NORMAL = 1, CONTROL = 3;
const INVISIBLE = /[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]/g;
const WHITESPACE =
  /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/;
const LONE_SURROGATE = /\p{Surrogate}/gu;

/** Text in the form that the package gives it: NFC, single spaces, nothing invisible. */
export function normalize(text) {
  text = text.replace(LONE_SURROGATE, "\ufffd").replaceAll(SPACE, " ");
  const words = text.replace(INVISIBLE, "").normalize("NFC").split(WHITESPACE);
  return words.filter(Boolean).join(" ");
}

export class Tokenizer {
  /** Read a SentencePiece model; `buffer` holds its file. */
  constructor(buffer) {
    this.pieces = [...readPieces(new Uint8Array(buffer))];
    this.ids = new Map();
    this.pieces.forEach(({ text, type }, id) => {
      if (type === NORMAL) this.ids.set(text, id);
    });
  }

  /** The ids of a text, ending with EOS. */
  encode(text) {
    text = normalize(text);
    if (!text) return [EOS];
    const ids = [];
    for (const part of this.merge([...(SPACE + text.replaceAll(" ", SPACE))])) {
      const id = this.ids.get(part) ?? UNK;
      if (id !== UNK || ids.at(-1) !== UNK) ids.push(id); // a run of unknowns is one
    }
    return [...ids, EOS];
  }

  /** Join neighbors while some pair of them is a piece: the earliest learned first. */
  merge(symbols) {
    const next = symbols.map((_, i) => i + 1), previous = symbols.map((_, i) => i - 1);
    const queue = new Queue();
    const offer = (left) => {
      const right = next[left];
      if (left < 0 || right >= symbols.length) return;
      const id = this.ids.get(symbols[left] + symbols[right]);
      if (id === undefined) return;
      const size = symbols[left].length + symbols[right].length;
      queue.push({ score: this.pieces[id].score, left, right, size });
    };
    symbols.forEach((_, i) => offer(i));
    for (let pair = queue.pop(); pair; pair = queue.pop()) {
      const { left, right, size } = pair;
      // One of the two has been merged since.
      if (!symbols[left] || !symbols[right]) continue;
      if (symbols[left].length + symbols[right].length !== size) continue;
      symbols[left] += symbols[right];
      symbols[right] = "";
      next[left] = next[right];
      if (next[left] < symbols.length) previous[next[left]] = left;
      offer(previous[left]);
      offer(left);
    }
    return symbols.filter(Boolean);
  }

  /** The text of ids, up to the first EOS. */
  decode(ids) {
    const end = ids.indexOf(EOS);
    let text = "";
    for (const id of end < 0 ? ids : ids.slice(0, end)) {
      const piece = this.pieces[id];
      if (piece.type === CONTROL) continue;
      if (id === UNK) text += " \u2047 ";
      else if (text) text += piece.text.replaceAll(SPACE, " ");
      else text = piece.text.replace(SPACE, "").replaceAll(SPACE, " ");
    }
    return text;
  }

  /** The label of an id; U+2581 stands for a space. */
  piece(id) {
    return this.pieces[id].text;
  }
}

/** A heap of pairs: the highest score first, and of equal ones the leftmost. */
class Queue {
  items = [];

  before(i, j) {
    const a = this.items[i], b = this.items[j];
    return a.score > b.score || (a.score === b.score && a.left < b.left);
  }

  swap(i, j) {
    [this.items[i], this.items[j]] = [this.items[j], this.items[i]];
  }

  push(item) {
    let i = this.items.push(item) - 1;
    for (let up = (i - 1) >> 1; i > 0 && this.before(i, up); up = (i - 1) >> 1) {
      this.swap(i, up);
      i = up;
    }
  }

  pop() {
    if (!this.items.length) return undefined;
    this.swap(0, this.items.length - 1);
    const item = this.items.pop();
    for (let i = 0; ; ) {
      let first = i;
      for (const down of [2 * i + 1, 2 * i + 2]) {
        if (down < this.items.length && this.before(down, first)) first = down;
      }
      if (first === i) return item;
      this.swap(i, first);
      i = first;
    }
  }
}

// The file is a protocol buffer. Its field 1, repeated, is a piece: its text (field 1),
// score (field 2) and type (field 3, 1 if it is left out).
function* readPieces(bytes) {
  for (const [field, value] of fields(bytes)) {
    if (field !== 1) continue;
    const piece = { text: "", score: 0, type: NORMAL };
    for (const [inner, content] of fields(value)) {
      if (inner === 1) piece.text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(content);
      if (inner === 2) {
        const view = new DataView(content.buffer, content.byteOffset, 4);
        piece.score = view.getFloat32(0, true);
      }
      if (inner === 3) piece.type = content;
    }
    yield piece;
  }
}

/** Number and value of each field of a message: a number, or bytes. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0, factor = 1;
    for (; ; factor *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  const take = (size) => bytes.subarray(at, (at += size));
  while (at < bytes.length) {
    const key = varint(), kind = key & 7;
    if (kind === 0) yield [key >> 3, varint()];
    else yield [key >> 3, take(kind === 5 ? 4 : kind === 1 ? 8 : varint())];
  }
}
