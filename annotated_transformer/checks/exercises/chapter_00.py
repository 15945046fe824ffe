"""Checks of chapter 00, Start here: one for each exercise.

They ask the model that ships with the course, and load it when it is first asked.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import cache, wraps
from itertools import pairwise

import torch
from torch import Tensor

from annotated_transformer.checks.common import NOT_DONE, Mistake, need
from annotated_transformer.decoding import beam_search
from annotated_transformer.errors import InputError
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
    german = translator.encode(sentence)  # each piece as a number
    english = beam_search(model, torch.tensor([german]))[0]  # what the model writes
    with torch.no_grad(), record_attention(model) as maps:  # once more, and keep notes
        model(torch.tensor([german]), torch.tensor([[BOS, *english]]))  # BOS: "begin"
    last = f"decoder.layers.{model.config.n_layers - 1}.cross_attention"
    weights = maps[last][0].mean(0)  # (English, German), the mean of the heads
    return weights, pieces([*english, EOS]), pieces(german)


def looked_at(word: str) -> tuple[str, float]:
    """The German word that the model looks at most while it writes this one."""
    weights, english, german = cross_attention(CASES[word])
    shares = weights[english.index(f"▁{word}")]
    return german[int(shares.argmax())].strip("▁"), shares.max().item()


def words_answer(check: Callable[..., str]) -> Callable[..., str]:
    """Make a check of words, not of a function, whose Mistakes are told, not raised.

    Letters with dots may be typed as one sign or as two; spaces around don't count.
    """

    @wraps(check)
    def checked(*answers: object) -> str:
        if any(answer is None or answer is ... for answer in answers):
            return NOT_DONE
        try:
            quoted = all(isinstance(answer, str) for answer in answers)
            need(quoted, "words in quotation marks are needed")
            signs = (unicodedata.normalize("NFC", str(x)).strip() for x in answers)
            return check(*signs)
        except Mistake as mistake:
            return str(mistake)

    return checked


@words_answer
def check_guess(word: str, guess: str) -> str:
    """Where the model looks while it writes "take" or "wearing".

    A guess that holds is "right: ..."; another word of the sentence is "surprise: ...".
    """
    if word not in CASES:
        raise InputError(f"there is no case {word!r}: choose from {', '.join(CASES)}")
    words = re.findall(r"\w+|[.,]", CASES[word])  # here, every word is one piece
    if guess not in words:
        for better in words:
            spelled = guess.strip(" ,.▁").lower() == better.lower()
            need(not spelled, f"write it as it stands there: {better!r}")
        others = (set(re.findall(r"\w+", other)) for other in CASES.values())
        need(guess not in set.union(*others), "that is in the other sentence")
        choice = f"choose from: {' '.join(words)}"
        raise Mistake(f"{guess[:40]!r} is not in the sentence: {choice}")
    found, share = looked_at(word)
    verdict = "right" if found == guess else "surprise"
    return f"{verdict}: it looks at {found!r}, with a weight of {share:.1f}"


def need_articles(words: list[str]) -> None:
    """Raise a Mistake unless each noun follows an article with which the dog acts."""
    for article, noun in pairwise(words):
        if noun == "katze":
            hers = "the article goes with its noun: the cat is always *die* here"
            need(article == "die", hers)
        elif noun == "hund":
            acts = "*den* Hund is the one who is chased: here the cat acts"
            need(article != "den", acts)
            dative = "the one who is chased is *den* Hund, who acts is *der* Hund"
            need(article != "dem", f"almost: {dative}")
            need(article == "der", "it is *der* Hund, or *den* Hund if he is chased")


@words_answer
def check_swap(sentence: str) -> str:
    """A sentence in which the dog chases, but the model makes it the cat."""
    words = sentence.rstrip(" .!?").split()
    small = [word.lower() for word in words]
    definite = "*the* cat, *the* dog: die, der or den, not ein"
    need({"eine", "einen", "ein"}.isdisjoint(small), definite)
    five = len(words) == 5 and {"hund", "jagt", "katze"} <= set(small)
    need(five, "five words are needed: Hund, Katze, jagt, and two articles")
    need_articles(["", *small])
    second = "in a German statement the verb stands second: jagt in the middle"
    need(small[2] == "jagt", second)
    large = [x.capitalize() if i in (0, 1, 4) else x for i, x in enumerate(small)]
    need(words == large, "capitals: the first word and every noun have one")
    need(re.search(r"\w\.$", sentence), "end with a period, as captions do")
    ours = translate(sentence)
    understood = f"the dog chases, and the model has understood it: {ours}"
    need(re.search("cat .*chas.* dog", ours), understood)
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


@words_answer
def check_senses(german: str, meant: str) -> str:
    """A sentence whose one word the model takes in the wrong meaning: "it says ..."."""
    easy = "begin with a capital, and end with a period: anything else is too easy"
    need(german.endswith(".") and german[:1].isupper(), easy)
    all_words = re.findall(r"\w+", german)
    found = [word for word in all_words if word in SENSES]
    here = " and ".join(found) or "none"
    one = f"exactly one word of the table is needed, as it stands there: here {here}"
    need(len(found) == 1, one)
    short = "a caption has four words or more: the others should tell the meaning"
    need(len(all_words) > 3, short)
    meanings, meant = SENSES[found[0]], meant.lower()
    need(meant in meanings, f"{found[0]} means {' or '.join(meanings)}, not {meant}")
    clue, reason = CLUES.get(meant, ("(?!)", ""))  # (?!) matches nothing
    right = f"the model may well be right: {reason}"
    need(not re.search(clue, german), right)
    ours = translate(german)
    read = [
        meaning
        for meaning, starts in meanings.items()
        if re.search(rf"\b({'|'.join(starts)})", ours)
    ]
    need(meant not in read, f"it got that right: {ours}")
    neither = f"it writes {ours!r}, neither {' nor '.join(meanings)}: use common words"
    need(read, neither)
    return f"it says {read[0]}, not {meant}: {ours}"
