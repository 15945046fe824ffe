"""Recipes: everything that determines a run's result, one for each corpus."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from annotated_transformer.config import (
    SMALL,
    TINY,
    SearchConfig,
    TrainingConfig,
    TransformerConfig,
)
from annotated_transformer.files import read_json
from annotated_transformer.grammar import MAX_SIZE
from annotated_transformer.settings import checked, parsed

SETTINGS = "settings.json"  # in the folder of a model or a run
MAY_CHANGE = ("steps", "patience", "keep")  # of a run that is resumed
PATHS = ("corpus", "validation", "test", "more", "start_from")

Language = Annotated[str, Field(pattern="^[a-z]{2,3}$")]

FOR_CAPTIONS = TrainingConfig(
    steps=3_200,
    batch_tokens=2_000,
    learning_rate=3e-3,
    warmup=200,
    validate_every=400,
    clip=1.0,
)


@checked
class Recipe:
    """Everything that determines a run's result, except the number of processes.

    `validation` and `test` name files to use instead of a part of the corpus, and
    `more` those whose pairs join the training split.
    `vocab_size` is the number of subwords, or 0 for whole words; `size` is the number
    of grammar pairs to train on. The model's own vocabulary follows from the tokenizer.
    `source_lang` and `target_lang` are spaCy's names of languages, for its rules.
    `start_from` is the run whose weights and tokenizer are the first ones of this run.
    """

    corpus: str
    validation: str | None = None
    test: str | None = None
    more: str | None = None
    model: TransformerConfig = SMALL
    training: TrainingConfig = FOR_CAPTIONS
    metric: Literal["bleu", "chrf", "exact_match", "validation_loss"] = "bleu"
    vocab_size: Annotated[int, Field(ge=0, le=1_000_000)] = 4_000
    size: Annotated[int, Field(ge=1, le=MAX_SIZE)] = 20_000
    start_from: str | None = None
    source_lang: Language = "de"
    target_lang: Language = "en"

    def settings(self) -> dict[str, Any]:
        """All fields but the model, as settings.json stores them."""
        return {key: value for key, value in asdict(self).items() if key != "model"}


@checked
class Settings:
    """What settings.json holds. `digests` are SHA-256 sums of a run's splits.

    `search` is how to decode with this model: §6.1 chooses it on the validation split.
    """

    model: TransformerConfig
    recipe: Recipe | None = None
    digests: dict[str, str] | None = None
    averaged: list[str] | None = None
    search: SearchConfig | None = None


def read_settings(folder: Path) -> Settings:
    """The settings of a model's folder. Raises InputError if they make no model."""
    path = folder / SETTINGS
    known = Settings.__annotations__.keys()  # more may be saved by name
    values = {key: value for key, value in read_json(path).items() if key in known}
    return parsed(Settings, json.dumps(values).encode(), path)


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
