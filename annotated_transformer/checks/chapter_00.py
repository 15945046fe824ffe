"""Checks of chapter 00, Start here: one for each exercise."""

from typing import Any

MISTAKES = {
    "der hund jagt die katze": "that is still the dog chasing the cat",
    "den hund jagt die katze": "good German for it, but rare: begin with the cat",
    "die katze jagt der hund": "der Hund is the one who acts: the dog still chases",
    "die katze jagt die hund": "it is der Hund, and its der becomes den here",
    "die katze jagt dem hund": "almost: der becomes den here, not dem",
}


def check_swap(sentence: Any) -> str:
    """The German for "The cat is chasing the dog."."""
    if sentence is None:
        return "not done yet"
    if not isinstance(sentence, str):
        return "one sentence in quotation marks is needed"
    words = sentence.strip().rstrip(".!").split()
    small = [word.lower() for word in words]
    if len(words) != 5 or not {"hund", "jagt", "katze"} <= set(small):
        return "five words are needed: Hund, Katze, jagt, and two articles"
    if {"eine", "einen", "ein"} & set(small):
        return "*the* cat, *the* dog: der, die or den, not ein"
    if small[:2] == ["der", "katze"]:
        return "is it der Katze? The article goes with its noun: the cat is a 'die'"
    if small != ["die", "katze", "jagt", "den", "hund"]:
        generic = "not yet: die Katze, then jagt, then the dog"
        return MISTAKES.get(" ".join(small), generic)
    if words != ["Die", "Katze", "jagt", "den", "Hund"]:
        return "right, but for capitals: the first word and every noun, no others"
    ends = sentence.strip().endswith(".")
    return "correct" if ends else "correct, but for the period"
