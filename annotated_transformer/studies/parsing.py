"""The same model reads constituency trees off sentences (§6.3, chapter 19).

Two layers here, of width 48; the paper has four, of width 1024. The arms:

- `few`: 250 right trees, as the paper's Wall Street Journal alone is few;
- `made`: the same, and trees for other sentences on which two parsers agree that were
  trained on the few (the paper's semi-supervised corpora were made by other parsers);
- `more`: right trees for all of these sentences.

Every arm trains for the same number of steps. Each row has `arm`, `seed`; `f1` (of
labeled brackets), `precision`, `recall`, `exact`, `well_formed`, from 0 to 1, on the
test split, whose combinations of words are new; `trees`, the number trained on, and
`right`, the part of them that is right.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product

import torch

from annotated_transformer.batches import EncodedPair, collate
from annotated_transformer.config import TransformerConfig
from annotated_transformer.constituents import Parsed, leaves, parsing_scores, treebank
from annotated_transformer.decoding import greedy_search
from annotated_transformer.lessons import train_small
from annotated_transformer.special import EOS, SPECIALS, UNK
from annotated_transformer.studies import Measures, Settings, Study
from annotated_transformer.transformer import Transformer

FEW, MORE, LONGEST = 250, 4000, 12  # trees, trees, words
STEPS, TOKENS, PEAK = 600, 500, 0.006


@cache
def trees() -> dict[str, list[Parsed]]:
    """The treebank's short sentences, by split."""
    return {
        split: [row for row in rows if len(row.words) <= LONGEST]
        for split, rows in treebank(20_000).items()
    }


class Parser:
    """An encoder-decoder from words to brackets, and its two vocabularies."""

    def __init__(self, corpus: Sequence[Parsed], seed: int):
        words = _often(row.words for row in corpus)
        tokens = _often(row.tree for row in corpus)
        self.words, self.tokens = ([*SPECIALS, *known] for known in (words, tokens))
        self.ids = [{w: i for i, w in enumerate(v)} for v in (self.words, self.tokens)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = Transformer(small(len(self.words), len(self.tokens)))

    def encode(self, row: Parsed) -> EncodedPair:
        """Ids of the words and of the tree; a word seen once is unknown."""
        source, target = (
            [*(ids.get(token, UNK) for token in side), EOS]
            for ids, side in zip(self.ids, row, strict=True)
        )
        return source, target

    def parse(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """The likeliest next bracket or tag, every time, until the end token."""
        rows = [self.encode(Parsed(list(words), [])) for words in sentences]
        found = greedy_search(self.model, collate(rows).src)
        return [[self.tokens[i] for i in ids] for ids in found]


def _often(texts: Iterable[Sequence[str]], at_least: int = 2) -> list[str]:
    """The tokens that occur again: the others teach what an unknown one is like."""
    counts = Counter(token for text in texts for token in text)
    return sorted(token for token, n in counts.items() if n >= at_least)


def small(words: int, tokens: int) -> TransformerConfig:
    """Two pre-norm layers in each stack, of width 48."""
    return TransformerConfig(
        vocab_size=words,
        tgt_vocab_size=tokens,
        d_model=48,
        d_ff=192,
        n_heads=4,
        n_layers=2,
        norm="pre",
        dropout=0.0,
    )


def train_parser(corpus: Sequence[Parsed], seed: int, *, steps: int = STEPS) -> Parser:
    """A parser trained on these trees; the seed decides weights, order and dropout."""
    parser = Parser(corpus, seed)
    pairs = [parser.encode(row) for row in corpus]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        training = train_small(
            parser.model, pairs, seed, steps=steps, tokens=TOKENS, peak=PEAK
        )
        deque(training, maxlen=0)
    return parser


def agreed(few: Sequence[Parsed], others: Sequence[Parsed]) -> list[Parsed]:
    """Trees for other sentences, where two parsers that were trained on few agree.

    An answer with too many or too few tags is left out; the right trees are not read.
    """
    words = [row.words for row in others]
    answers = [train_parser(few, seed).parse(words) for seed in TEACHERS]
    return [
        Parsed(sentence, one)
        for sentence, one, other in zip(words, *answers, strict=True)
        if one == other and leaves(one) == len(sentence)
    ]


@cache
def corpus_of(arm: str) -> list[Parsed]:
    """What an arm is trained on."""
    more = trees()["train"][:MORE]
    few, others = more[:FEW], more[FEW:]
    if arm == "made":
        return [*few, *agreed(few, others)]
    return few if arm == "few" else more


def measure(settings: Settings) -> Measures:
    """Train a parser of this arm, and score it on new combinations of words."""
    corpus, test = corpus_of(settings["arm"]), trees()["test"]
    parser = train_parser(corpus, settings["seed"])
    scores = parsing_scores(
        parser.parse([row.words for row in test]), [row.tree for row in test]
    )
    true = {" ".join(row.words): row.tree for row in trees()["train"]}
    right = sum(true[" ".join(row.words)] == row.tree for row in corpus)
    return {**scores._asdict(), "trees": len(corpus), "right": right / len(corpus)}


TEACHERS = (100, 101)  # seeds
ARMS = ("few", "made", "more")
STUDY = Study(
    about="constituency trees by an encoder-decoder: F1 on the test split",
    runs=[{"arm": arm, "seed": seed} for arm, seed in product(ARMS, range(5))],
    measure=measure,
)
