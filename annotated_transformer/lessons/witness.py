"""A language whose answers are known (chapter 14)."""

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from annotated_transformer.batches import EncodedPair, collate, epochs
from annotated_transformer.errors import InputError
from annotated_transformer.grammar import Noun, Pair, Phrase, Sampler, Verb
from annotated_transformer.objectives import Objective
from annotated_transformer.schedule import cosine
from annotated_transformer.training import adam, set_rate, train_step
from annotated_transformer.transformer import Transformer


class Made(NamedTuple):
    """What a sentence of the grammar is made of."""

    used: set[str]  # combinations, such as "klein Hund" and "... malt"
    notes: set[str]  # its pattern; "separable verb", "plural", "compound"


class Witness(Sampler):
    """Draws what a `Sampler` draws, and notes what each sentence is made of."""

    def __init__(self, seed: int):
        super().__init__(seed)
        self.notes: set[str] = set()

    def sentence(self) -> Pair | None:
        """Draw a sentence, as the grammar does."""
        self.notes = set()
        return super().sentence()

    def clause(self, pattern: str, verb: Verb, subject: Phrase) -> dict[str, Pair]:
        """Note the pattern, and whether the verb is cut in two."""
        self.notes |= {pattern.removesuffix(" first")}
        self.notes |= {"separable verb"} if verb.prefix else set()
        return super().clause(pattern, verb, subject)

    def phrase(self, noun: Noun, case: str, is_plural: bool | None = None) -> Phrase:
        """Note plurals and compounds."""
        phrase = super().phrase(noun, case, is_plural)
        plain, _ = noun.inflect(case, phrase.is_plural)
        self.notes |= {"plural"} if phrase.is_plural else set()
        last = phrase.words[0].split()[-1]
        self.notes |= {"compound"} if last != plain else set()
        return phrase

    def made(self) -> Made:
        """What the last sentence is made of."""
        return Made(set(self.used), set(self.notes))


def witnessed(pairs: Collection[Pair], seed: int = 0) -> dict[Pair, Made]:
    """What each of these pairs of `grammar_corpus` is made of: drawn again, watched.

    Raises InputError if the seed does not draw them.
    """
    found: dict[Pair, Made] = {}
    wanted, witness, waited = set(pairs), Witness(seed), 0
    while len(found) < len(wanted):
        pair, waited = witness.sentence(), waited + 1
        if pair in wanted and pair not in found:
            found[pair], waited = witness.made(), 0
        if waited > 20_000:
            missing = len(wanted) - len(found)
            raise InputError(f"{missing} of the pairs are not drawn with seed {seed}")
    return {pair: found[pair] for pair in pairs}


def train_small(
    model: Transformer,
    pairs: Sequence[EncodedPair],
    seed: int,
    *,
    steps: int,
    tokens: int,
    peak: float,
) -> Iterator[tuple[float, int]]:
    """Chapter 09's loop on batches of `tokens`: the loss of each, and its tokens."""
    objective, optimizer = Objective(model, smoothing=0.1), adam(model)
    stream = islice(epochs(pairs, tokens, seed=seed), steps)
    for step, (_, chosen) in enumerate(stream, start=1):
        set_rate(optimizer, cosine(step, peak=peak, warmup=60, total=steps))
        batch = collate(chosen)
        n = batch.n_tokens
        model.train()
        yield train_step(objective, optimizer, [batch], n_tokens=n, clip=1.0) / n, n
