"""Text into tensors, problem 3.4."""

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    Function,
    Mistake,
    ask,
    need,
    need_tensor,
    seeded,
    verdict,
)
from annotated_transformer.special import EOS, PAD, UNK

__all__ = ["check_prepare"]


def check_prepare(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`prepare(train, test, max_length)`: a vocabulary, and a tensor for each split.

    Parts: "vocabulary", "truncation", "padding".
    """
    return verdict(
        function,
        part,
        seed,
        vocabulary=_vocabulary,
        truncation=_truncation,
        padding=_padding_of_split,
    )


def _sentences(seed: int) -> tuple[list[str], list[str], int]:
    names = "dog cat man sun red big runs sees the a".split()
    order = torch.randperm(len(names), generator=seeded(seed + 2)).tolist()
    a, b, c, d, e, f, *_ = [names[i] for i in order]
    train = [f"{a} {b} {a}", f"{b} {c}", f"{d} {a} {b} {c} {d} {a} {b}"]
    test = [f"{a} {e} {b}", f"{f} {a}"]
    return train, test, 5 if seed == 0 else 4 + seed % 2


def _prepared(function: Function, seed: int) -> tuple[dict, dict, tuple, int]:
    train, test, limit = _sentences(seed)
    found = ask(function, train, test, limit)
    need(
        isinstance(found, tuple) and len(found) == 2,
        "return two things: the vocabulary and the dict of tensors",
    )
    vocabulary, tensors = found
    need(
        isinstance(vocabulary, dict), "the vocabulary should be a dict from word to id"
    )
    need(
        isinstance(tensors, dict) and set(tensors) == {"train", "test"},
        "the tensors should be a dict with the keys 'train' and 'test'",
    )
    need(
        all(isinstance(t, Tensor) and t.dim() == 2 for t in tensors.values()),
        "each split should be one tensor (sentence, position)",
    )
    return vocabulary, tensors, (train, test), limit


def _vocabulary(function: Function, seed: int) -> None:
    vocabulary, tensors, (train, test), _ = _prepared(function, seed)
    seen = {word for text in train for word in text.split()}
    only_test = {word for text in test for word in text.split()} - seen
    leaked = sorted(only_test & set(vocabulary))
    need(
        not leaked,
        f"the vocabulary knows {leaked}, which only the test split has: build it from "
        "the training split alone",
    )
    missing = sorted(seen - set(vocabulary))
    need(not missing, f"{missing} of the training split are missing")
    ids = [vocabulary[word] for word in seen]
    need(len(set(ids)) == len(ids), "two words share an id")
    need(
        min(ids) > UNK,
        f"ids 0 to {UNK} are PAD, BOS, EOS and UNK: words begin at {UNK + 1}",
    )
    need(
        max(ids) == UNK + len(ids),
        f"{len(ids)} words, but ids from {min(ids)} to {max(ids)}: begin at {UNK + 1}, "
        "and leave no gap",
    )
    rows = tensors["test"].tolist()
    words = test[0].split()
    wanted = [vocabulary.get(word, UNK) for word in words]
    need(
        rows[0][: len(words)] == wanted,
        f"{test[0]!r} should begin with the ids {wanted} (UNK = {UNK} for a word that "
        f"training never saw), not {rows[0]}",
    )


def _truncation(function: Function, seed: int) -> None:
    _, tensors, (train, test), limit = _prepared(function, seed)
    for split, texts in (("train", train), ("test", test)):
        for text, row in zip(texts, tensors[split].tolist(), strict=True):
            ids = [i for i in row if i != PAD]
            n = min(len(text.split()), limit - 1) + 1
            need(
                ids and ids[-1] == EOS,
                f"{text!r} ends without EOS: cut the WORDS to max_length - 1, then add "
                "it, or the model never learns to stop",
            )
            need(
                len(ids) <= limit,
                f"{text!r} has {len(ids)} ids with EOS, but max_length is {limit}",
            )
            need(
                len(ids) == n,
                f"{text!r} should have {n} ids with EOS, not {len(ids)}: cut no more "
                "than needed",
            )
            need(ids.count(EOS) == 1, f"{text!r} has {ids.count(EOS)} end tokens")


def _padding_of_split(function: Function, seed: int) -> None:
    _, tensors, (train, test), limit = _prepared(function, seed)
    for split, texts in (("train", train), ("test", test)):
        longest = max(min(len(text.split()) + 1, limit) for text in texts)
        tensor = tensors[split]
        width = tensor.size(1)
        need(
            width >= longest,
            f"{split}: {width} columns, but the longest sentence needs {longest}",
        )
        if width > longest and not tensor[:, longest:].any():
            raise Mistake(
                f"{split}: {width} columns, but its longest sentence has {longest}: "
                "pad to the longest sentence at hand, not to max_length"
            )
        need_tensor(tensor, (len(texts), longest), torch.long)
        for text, row in zip(texts, tensor.tolist(), strict=True):
            n = min(len(text.split()) + 1, limit)
            need(
                all(i == PAD for i in row[n:]),
                f"{text!r} is filled with {row[n:]}: fill with PAD ({PAD}), at the end",
            )
