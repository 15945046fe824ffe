"""Checks of chapter 00, Start here: one for each exercise.

They ask the model that ships with the course, and load it when it is first asked.
"""

import re
from functools import cache
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.decoding import beam_search
from annotated_transformer.recording import record_attention
from annotated_transformer.special import BOS, EOS
from annotated_transformer.translator import Translator

__all__ = ["check_guess", "check_senses", "check_swap"]

CASES = {
    "take": "Ein Mann sitzt auf dem Boden, um ein Foto zu machen.",
    "wearing": "Ein Mann, der einen Hut trägt, liest eine Zeitung.",
}


@cache
def pretrained() -> Translator:
    """The model that ships with the course, loaded once."""
    return Translator.pretrained()


def translate(german: str) -> str:
    """What the model makes of one sentence."""
    return pretrained().translate([german])[0]


def cross_attention(sentence: str) -> tuple[Tensor, list[str], list[str]]:
    """The last layer's mean map (English, German), and the pieces of both."""
    translator = pretrained()
    model, pieces = translator.model, translator.tokenizer.source_pieces
    german = translator.encode(sentence)
    english = beam_search(model, torch.tensor([german]))[0]
    with torch.no_grad(), record_attention(model) as maps:
        model(torch.tensor([german]), torch.tensor([[BOS, *english]]))
    last = f"decoder.layers.{model.config.n_layers - 1}.cross_attention"
    return maps[last][0].mean(0), pieces([*english, EOS]), pieces(german)


def looked_at(word: str) -> tuple[str, float]:
    """The German word that the model looks at most while it writes this one."""
    weights, english, german = cross_attention(CASES[word])
    shares = weights[english.index(f"▁{word}")]
    return german[int(shares.argmax())].strip("▁"), shares.max().item()


def check_guess(word: str, guess: Any) -> str:
    """Where the model looks while it writes "take" or "wearing".

    A guess that holds is "right: ..."; another word of the sentence is "surprise: ...".
    """
    if guess is None:
        return "not done yet"
    if not isinstance(guess, str):
        return "one German word in quotation marks is needed"
    words = re.findall(r"\w+|[.,]", CASES[word])  # here, every word is one piece
    if guess not in words:
        for better in words:
            if guess.strip(" ,.▁").lower() == better.lower():
                return f"write it as it stands there: {better!r}"
        if any(guess in re.findall(r"\w+", other) for other in CASES.values()):
            return "that is in the other sentence"
        return f"{guess!r} is not in the sentence: choose from: {' '.join(words)}"
    found, share = looked_at(word)
    verdict = "right" if found == guess else "surprise"
    return f"{verdict}: it looks at {found!r}, with a share of {share:.1f}"


MISTAKES = {
    "die katze jagt den hund": "*den* Hund is the one who is chased: here the cat acts",
    "den hund jagt die katze": "*den* Hund is the one who is chased: here the cat acts",
    "die hund": "it is *der* Hund, or *den* Hund if he is chased",
    "dem hund": "almost: the one who is chased is *den* Hund, who acts is *der* Hund",
    "der katze": "the article goes with its noun: the cat is always *die* here",
    "den katze": "the article goes with its noun: the cat is always *die* here",
}


def check_swap(sentence: Any) -> str:
    """A sentence in which the dog chases, but the model makes it the cat."""
    if sentence is None:
        return "not done yet"
    if not isinstance(sentence, str):
        return "one sentence in quotation marks is needed"
    words = sentence.strip().rstrip(".!").split()
    small = " ".join(words).lower()
    if {"eine", "einen", "ein"} & set(small.split()):
        return "*the* cat, *the* dog: die, der or den, not ein"
    if len(words) != 5 or not {"hund", "jagt", "katze"} <= set(small.split()):
        return "five words are needed: Hund, Katze, jagt, and two articles"
    for part, said in MISTAKES.items():
        if part in small:
            return said
    if small.split()[2] != "jagt":
        return "in a German statement the verb stands second: jagt in the middle"
    if words[0] != words[0].capitalize() or not {"Hund", "Katze"} <= set(words):
        return "capitals: the first word and every noun have one"
    if not sentence.strip().endswith("."):
        return "end with a period, as captions do"
    ours = translate(sentence)
    if not re.search("cat .*chas.* dog", ours):
        return f"the dog chases, and the model has understood it: {ours}"
    return f"correct: the dog chases, and the model writes {ours!r}"


# A German word: its meanings, each with the beginnings that we look for.
SENSES: dict[str, dict[str, tuple[str, ...]]] = {
    "Bank": {"bench": ("bench",), "bank": ("bank",)},
    "Schlange": {"line": ("line", "queue"), "snake": ("snake",)},
    "Decke": {"blanket": ("blanket",), "ceiling": ("ceiling",)},
    "Blatt": {"sheet": ("sheet", "paper"), "leaf": ("leaf", "leaves")},
    "Leiter": {"ladder": ("ladder",), "leader": ("leader", "head of")},
    "trägt": {"wearing": ("wear",), "carrying": ("carry", "carri")},
}
CLUES = {  # if these stand there, it is the other meaning after all
    "bank": (
        r"(sitz|schläf|lieg|schlaf)\w* .*auf (einer|der) Bank",
        "one sits on a bench",
    ),
    "leader": (r"auf (einer|der) Leiter", "one stands on a ladder"),
    "snake": (r"(steh|wart)\w* .*in (einer|der) Schlange", "one waits in a line"),
    "ceiling": (
        r"(sitz|lieg|schläf)\w* .*(auf|unter) einer Decke",
        "that is a blanket",
    ),
    "carrying": (r"trägt \w+ (\w+ )?(Hut|Hemd|Jacke|Kleid|Helm|Mütze)", "one wears it"),
}


def check_senses(german: Any, meant: Any) -> str:
    """A sentence whose one word the model takes in the wrong meaning: "it says ..."."""
    if german is None or meant is None:
        return "not done yet"
    if not (isinstance(german, str) and isinstance(meant, str)):
        return "a sentence and a word are needed, both in quotation marks"
    if not (german.endswith(".") and german[:1].isupper()):
        return "begin with a capital, and end with a period: anything else is too easy"
    found = [word for word in SENSES if re.search(rf"\b{word}\b", german)]
    if len(found) != 1:
        here = " and ".join(found) or "none"
        return (
            f"exactly one word of the table is needed, as it stands there: here {here}"
        )
    meanings = SENSES[found[0]]
    if meant not in meanings:
        return f"{found[0]} means {' or '.join(meanings)}, not {meant}"
    clue, reason = CLUES.get(meant, ("(?!)", ""))  # (?!) matches nothing
    if re.search(clue, german):
        return f"the model may well be right: {reason}"
    ours = translate(german)
    read = [
        meaning
        for meaning, starts in meanings.items()
        if re.search(rf"\b({'|'.join(starts)})", ours)
    ]
    if meant in read:
        return f"it got that right: {ours}"
    if not read:
        return f"it writes {ours!r}, neither {' nor '.join(meanings)}: use common words"
    return f"it says {read[0]}, not {meant}: {ours}"
