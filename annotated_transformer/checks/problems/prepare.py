"""Text into tensors, problem 3.4."""

from collections.abc import Iterator

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    Function,
    need,
    need_tensor,
    seeded,
    verdict,
)
from annotated_transformer.special import EOS, PAD, UNK

__all__ = ["check_prepare"]

Splits = dict[str, list[str]]


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
        padding=_padding,
    )


def cases(seed: int) -> Iterator[tuple[Splits, int]]:
    """Made-up splits and a limit: the longest sentence is cut, then it is not."""
    names = "dog cat man sun red big runs sees the a".split()
    order = torch.randperm(len(names), generator=seeded(seed + 2)).tolist()
    a, b, c, d, e, f, *_ = [names[i] for i in order]
    train = [f"{a} {b} {a}", f"{b} {c}", f"{d} {a} {b} {c} {d} {a} {b}"]
    splits = {"train": train, "test": [f"{a} {e} {b}", f"{f} {a}"]}
    yield splits, 5 if seed == 0 else 4 + seed % 2
    yield splits, 20
    yield splits, 1  # room for EOS alone
    yield {"train": [f"{c}  {a}", ""], "test": [" ".join([b] * 9)]}, 6


def prepared(
    function: Answer, splits: Splits, limit: int
) -> tuple[dict[str, int], dict[str, Tensor]]:
    """The vocabulary and the tensors, each of the kind that is asked for."""
    found = function(splits["train"], splits["test"], limit)
    two = "return two things: the vocabulary and the dict of tensors"
    need(isinstance(found, tuple | list) and len(found) == 2, two)
    vocabulary, tensors = found
    words = "the vocabulary should be a dict from word to id"
    need(isinstance(vocabulary, dict), words)
    turned = all(isinstance(key, int) for key in vocabulary)
    need(not turned or not vocabulary, f"{words}, not from id to word")
    keys = "the tensors should be a dict with the keys 'train' and 'test'"
    need(isinstance(tensors, dict) and set(tensors) == set(splits), keys)
    for name, texts in splits.items():
        tensor = tensors[name]
        one = "each split should be one tensor (sentence, position)"
        need(isinstance(tensor, Tensor) and tensor.dim() == 2, one)
        need_tensor(tensor, (len(texts), tensor.size(1)), torch.long)
    return vocabulary, tensors


def _vocabulary(function: Answer, seed: int) -> None:
    for splits, limit in cases(seed):
        vocabulary, tensors = prepared(function, splits, limit)
        seen, others = (
            {word for text in splits[name] for word in text.split()}
            for name in ("train", "test")
        )
        alone = "build it from the training split alone"
        leaked = sorted((others - seen) & set(vocabulary))
        need(not leaked, f"{leaked} are known, which only the test split has: {alone}")
        missing = sorted(seen - set(vocabulary))
        need(not missing, f"{missing} of the training split are missing")
        strange = sorted(map(str, set(vocabulary) - seen))
        need(not strange, f"{strange} are no words of the training split")
        _ids(list(vocabulary.values()))
        for text, row in zip(splits["test"], tensors["test"].tolist(), strict=True):
            wanted = [vocabulary.get(word, UNK) for word in text.split()]
            found = [i for i in row if i not in (PAD, EOS)]
            unknown = f"(UNK = {UNK} for a word that training never saw)"
            hint = f"{text!r} should have the ids {wanted} {unknown}, not {row}"
            need(found == wanted[: len(found)], hint)  # how many is another part's


def _ids(ids: list[int]) -> None:
    need(len(set(ids)) == len(ids), "two words share an id")
    special = f"ids 0 to {UNK} are PAD, BOS, EOS and UNK: words begin at {UNK + 1}"
    need(min(ids) > UNK, special)
    gap = f"begin at {UNK + 1}, and leave no gap"
    found = f"{len(ids)} words, but ids from {min(ids)} to {max(ids)}"
    need(max(ids) == UNK + len(ids), f"{found}: {gap}")


def _truncation(function: Answer, seed: int) -> None:
    cut = "cut the WORDS to max_length - 1, then add it, or the model never stops"
    for splits, limit in cases(seed):
        _, tensors = prepared(function, splits, limit)
        for name, texts in splits.items():
            for text, row in zip(texts, tensors[name].tolist(), strict=True):
                ids = [i for i in row if i != PAD]
                n, right = len(ids), min(len(text.split()), limit - 1) + 1
                need(ids and ids[-1] == EOS, f"{text!r} ends without EOS: {cut}")
                long = f"{text!r} has {n} ids with EOS, but max_length is {limit}"
                need(n <= limit, long)
                wrong = f"{text!r} should have {right} ids with EOS, not {n}"
                need(n == right, f"{wrong}: cut no more than needed")
                ends = ids.count(EOS)
                need(ends == 1, f"{text!r} has {ends} end tokens")


def _padding(function: Answer, seed: int) -> None:
    for splits, limit in cases(seed):
        _, tensors = prepared(function, splits, limit)
        for name, texts in splits.items():
            tensor = tensors[name]
            lengths = [min(len(text.split()) + 1, limit) for text in texts]
            width, longest = tensor.size(1), max(lengths)
            wide = f"{name}: {width} columns, but its longest sentence "
            need(width >= longest, f"{wide}needs {longest}")
            at_hand = "pad to the longest sentence at hand, not to max_length"
            empty = width > longest and not tensor[:, longest:].any()
            need(not empty, f"{wide}has {longest}: {at_hand}")
            need_tensor(tensor, (len(texts), longest))
            for text, n, row in zip(texts, lengths, tensor.tolist(), strict=True):
                rest = f"{text!r} is filled with {row[n:]}"
                right = all(i == PAD for i in row[n:])
                need(right, f"{rest}: fill with PAD ({PAD}), at the end")
