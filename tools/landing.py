"""Compute the landing page's sentence: its translation, and where each word looked.

    python -m tools.landing                       # writes book/landing.yml
    python -m tools.landing --sentence "Ein Hund bellt."

The model is the one that ships with the package, so nothing is trained or downloaded.
"""

import argparse
from pathlib import Path

import torch
import yaml

from annotated_transformer.files import whole_or_nothing
from annotated_transformer.translator import Translator
from tools.picture import cross_attention

SENTENCE = "Ein Mann, der einen roten Hut trägt, spielt Gitarre."
TARGET = Path(__file__).parents[1] / "book" / "landing.yml"
SPACE = "\u2581"


def words(pieces: list[str]) -> list[list[int]]:
    """Which pieces make up each word; a mark that follows a word belongs to it."""
    found: list[list[int]] = []
    for i, piece in enumerate(pieces):
        if piece.startswith(SPACE) or not found:
            found.append([])
        found[-1].append(i)
    return found


def text(pieces: list[str], word: list[int]) -> str:
    """A word as it is written."""
    return "".join(pieces[i] for i in word).replace(SPACE, "").strip()


def look(translator: Translator, sentence: str, layer: int) -> dict:
    """The sentence, its translation, and each English word's weight on each German one.

    Heads are averaged. Over the pieces of one word, weights are summed if the word is
    German and averaged if it is English. The end token is left out.
    """
    tokenizer = translator.tokenizer
    weights, source, output = cross_attention(translator, sentence, layer)
    german = tokenizer.source_pieces(source[:-1])
    english = tokenizer.target_pieces(output[:-1])
    rows, columns = words(english), words(german)
    word_weights = [
        [
            round(float(weights[row][:, column].sum(-1).mean()), 2)
            for column in map(torch.tensor, columns)
        ]
        for row in map(torch.tensor, rows)
    ]
    return {
        "sentence": sentence,
        "translation": tokenizer.decode(output),
        "source": [text(german, column) for column in columns],
        "target": [text(english, row) for row in rows],
        "weights": word_weights,
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentence", default=SENTENCE)
    parser.add_argument("--layer", type=int, default=-1, help="cross-attention's layer")
    arguments = parser.parse_args()
    found = look(Translator.pretrained(), arguments.sentence, arguments.layer)
    head = "# Written by tools/landing.py; do not edit.\n"
    body = yaml.safe_dump(
        found, allow_unicode=True, sort_keys=False, width=88, default_flow_style=None
    )
    with whole_or_nothing(TARGET) as temporary:
        temporary.write_text(head + body, "utf-8")
    print(f"{TARGET.name}: {found['sentence']} -> {found['translation']}")


if __name__ == "__main__":
    main()
