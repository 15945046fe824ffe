"""Recipes: everything that determines a run's result, one for each corpus."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from annotated_transformer.config import SMALL, TINY, TrainingConfig, TransformerConfig

FOR_CAPTIONS = TrainingConfig(
    steps=3_200,
    batch_tokens=2_000,
    learning_rate=3e-3,
    warmup=200,
    validate_every=400,
    clip=1.0,
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines a run's result, except the number of processes.

    `vocab_size` is the number of subwords, or 0 for whole words; `size` is the number
    of grammar pairs to train on. The model's own vocabulary follows from the tokenizer.
    """

    corpus: str
    model: TransformerConfig = SMALL
    training: TrainingConfig = FOR_CAPTIONS
    metric: str = "bleu"
    vocab_size: int = 4_000
    size: int = 20_000

    def settings(self) -> dict[str, Any]:
        """All fields but the model, as settings.json stores them."""
        return {key: value for key, value in asdict(self).items() if key != "model"}


RECIPES = {
    "grammar": Recipe(
        corpus="grammar",
        model=TINY,
        training=replace(
            FOR_CAPTIONS,
            steps=1_800,
            batch_tokens=1_600,
            warmup=100,
            validate_every=600,
        ),
        metric="exact_match",
        vocab_size=1_000,
    ),
    "multi30k": Recipe(corpus="multi30k"),
}


def recipe_for(corpus: str) -> Recipe:
    """The recipe for a corpus; a reader's own files use Multi30k's."""
    return RECIPES.get(corpus) or replace(RECIPES["multi30k"], corpus=corpus)
