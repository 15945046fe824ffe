"""Counts of Multi30k's training captions, for who has them."""

import re

from annotated_transformer import corpora
from annotated_transformer.files import read_json
from annotated_transformer.translator import PRETRAINED


class TrainingCaptions:
    """Counts of Multi30k's training captions, for who has them; else, ours.

    The corpus may not be passed on, but numbers about it may: they ship with the model.
    `pairs` is empty where the corpus is missing.
    """

    def __init__(self) -> None:
        at_hand = corpora.multi30k_at_hand()
        self.pairs = corpora.multi30k()["train"] if at_hand else []
        self.ours = read_json(PRETRAINED / "lesson.json")

    def count(self, *patterns: str) -> int:
        r"""How many captions have all of these German words; \b is a word's edge."""
        return sum(
            all(re.search(pattern, german) for pattern in patterns)
            for german, _ in self.pairs
        )

    def show(self, **numbers: int) -> None:
        """Print the numbers; where the corpus is missing, ours of the same names."""
        for name, number in numbers.items():
            name = name.replace("_", " ")
            print(f"{name:28}{number if self.pairs else self.ours[name]:6,}")
        if not self.pairs:
            print("(our counts: Multi30k is not on this machine)")
