"""Translate with ONNX Runtime: python translate.py "Ein Hund läuft am Strand."

Needs onnxruntime, numpy and sentencepiece, and the files beside this one.
"""

import re
import sys
import unicodedata
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession, SessionOptions
from sentencepiece import SentencePieceProcessor

HERE = Path(__file__).parent
INVISIBLE = re.compile(
    "[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
PAD, BOS, EOS = 0, 1, 2
EXTRA_LENGTH = 50  # an output may be this much longer than its source


def normalize(text):
    """The form in which the model has read all its text."""
    text = INVISIBLE.sub("", text.replace("\u2581", " "))
    return " ".join(unicodedata.normalize("NFC", text).split())


def load(folder=HERE, threads=1):
    """The tokenizer, the encoder, and one step of the decoder."""
    options = SessionOptions()
    options.intra_op_num_threads = threads
    tokenizer = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    paths = (str(folder / f"{name}.onnx") for name in ("encoder", "step"))
    return tokenizer, *(InferenceSession(path, options) for path in paths)


def greedy(encoder, step, src):
    """Ids of each output of a batch of source ids, the likeliest at every step."""
    src_keys, src_values = encoder.run(None, {"src": src})
    keys, values = src_keys[:, :, :, :0], src_values[:, :, :, :0]  # nothing yet
    ids = np.full((len(src), 1), BOS)
    outputs, ended = [], np.zeros(len(src), bool)
    limits = (src != PAD).sum(1) + EXTRA_LENGTH
    while not ended.all():
        position = len(outputs)
        logits, keys, values = step.run(
            None,
            {
                "ids": ids,
                "position": np.array(position),
                "past": np.ones((len(src), 1, position + 1), bool),
                "src": src,
                "src_keys": src_keys,
                "src_values": src_values,
                "keys": keys,
                "values": values,
            },
        )
        logits[..., [PAD, BOS]] = -np.inf
        ids = logits.argmax(-1)
        ids[ended] = EOS
        outputs.append(ids[:, 0])
        ended |= (ids[:, 0] == EOS) | (position + 1 >= limits)
    return np.stack(outputs, 1).tolist()


def translate(sentences, tokenizer, encoder, step):
    """Translate sentences in one batch."""
    texts = list(map(normalize, sentences))
    rows = [[*tokenizer.encode(text), EOS] for text in texts]
    src = np.full((len(rows), max(map(len, rows))), PAD)
    for i, row in enumerate(rows):
        src[i, : len(row)] = row
    outputs = greedy(encoder, step, src)
    ends = [ids.index(EOS) if EOS in ids else len(ids) for ids in outputs]
    return [tokenizer.decode(ids[:end]) for ids, end in zip(outputs, ends, strict=True)]


if __name__ == "__main__":
    for line in translate(sys.argv[1:], *load()):
        print(line)
