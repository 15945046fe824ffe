"""A training run from corpus to weights: recipe, folder, processes."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from annotated_transformer.batches import EncodedPair
from annotated_transformer.checkpoints import WEIGHTS, average_weights, list_checkpoints
from annotated_transformer.config import TransformerConfig
from annotated_transformer.corpora import Pair, load_corpus
from annotated_transformer.decoding import beam_search, greedy_search
from annotated_transformer.errors import InputError
from annotated_transformer.files import read_json
from annotated_transformer.processes import Processes
from annotated_transformer.recipes import Recipe
from annotated_transformer.scores import corpus_scores, word_bleu
from annotated_transformer.tokenizers import (
    SubwordTokenizer,
    Tokenizer,
    WordTokenizer,
    load_tokenizer,
)
from annotated_transformer.training import TrainingConfig, train
from annotated_transformer.transformer import Transformer
from annotated_transformer.translator import SETTINGS, Translator, save_settings


def prepare(run: Path, recipe: Recipe, *, data_dir: Path | None, resume: bool) -> None:
    """Write a run's tokenizer and settings, so that bad input fails before training.

    Raises InputError if the folder already holds a run, or, with `resume`, a run with
    other settings.
    """
    pairs = load_corpus(recipe.corpus, data_dir=data_dir, size=recipe.size)
    exists = (run / SETTINGS).exists()
    if exists and not resume:
        raise InputError(
            f"{run} already holds a run: --resume continues it, "
            "--run names another folder"
        )
    if exists:
        tokenizer = load_tokenizer(run)
    elif recipe.vocab_size:
        tokenizer = SubwordTokenizer.train(pairs["train"], vocab_size=recipe.vocab_size)
    else:
        tokenizer = WordTokenizer.train(pairs["train"])
    target = None if tokenizer.shared else tokenizer.target_vocab_size
    model = replace(
        recipe.model, vocab_size=tokenizer.source_vocab_size, tgt_vocab_size=target
    )
    if not exists:
        save_settings(run, model, tokenizer, recipe=recipe.settings())
        return
    saved = read_json(run / SETTINGS)
    now = {"model": asdict(model), "recipe": recipe.settings()}
    different = [
        f"{key} ({old} there, {new} now)"
        for part in now
        for key, old, new in differences(saved.get(part, {}), now[part])
    ]
    if different:
        raise InputError(
            f"{run} was started with other settings: {', '.join(different)}"
        )


def differences(old: dict, new: dict) -> list[tuple[str, Any, Any]]:
    """Keys at any depth whose values differ, with both values."""
    found: list[tuple[str, Any, Any]] = []
    for key in new:
        if isinstance(new[key], dict) and isinstance(old.get(key), dict):
            found += differences(old[key], new[key])
        elif old.get(key) != new[key]:
            found.append((key, old.get(key), new[key]))
    return found


def encode(pairs: list[Pair], tokenizer: Tokenizer) -> list[EncodedPair]:
    """Turn text into ids, on both sides of each pair."""
    return [
        (tokenizer.encode_source(source), tokenizer.encode_target(target))
        for source, target in pairs
    ]


def train_run(run: Path, data_dir: Path | None, options: dict[str, Any]) -> None:
    """Train in a prepared folder: what each process of a run executes.

    The options are those of `train`: device, resume, tensorboard.
    """
    settings = read_json(run / SETTINGS)
    recipe = settings["recipe"]
    config = TrainingConfig(**recipe["training"])
    pairs = load_corpus(recipe["corpus"], data_dir=data_dir, size=recipe["size"])
    tokenizer = load_tokenizer(run)
    torch.manual_seed(config.seed)
    translator = Translator(
        Transformer(TransformerConfig(**settings["model"])), tokenizer
    )
    train(
        translator.model,
        encode(pairs["train"], tokenizer),
        encode(pairs["validation"], tokenizer),
        config,
        run,
        score=greedy_scores(translator, pairs["validation"]),
        metric=recipe["metric"],
        **options,
    )


def greedy_scores(
    translator: Translator, pairs: list[Pair]
) -> Callable[[Processes], dict[str, float]]:
    """Validation by translating: each process translates its part of the sentences."""

    def score(group: Processes) -> dict[str, float]:
        sources = [source for source, _ in group.part(pairs)]
        parts = group.gather(translator.translate(sources, search=greedy_search))
        hypotheses = [""] * len(pairs)
        for rank, part in enumerate(parts):
            hypotheses[rank :: group.count] = part
        scores = corpus_scores(hypotheses, [target for _, target in pairs])
        return {
            "bleu": scores.bleu,
            "chrf": scores.chrf,
            "exact_match": scores.exact_match,
        }

    return score


def trained_on(folder: Path) -> str:
    """The corpus of the run that made a model. Raises InputError if none is named."""
    corpus = read_json(folder / SETTINGS).get("recipe", {}).get("corpus")
    if corpus is None:
        raise InputError(f"{folder / SETTINGS} names no corpus: name one with --corpus")
    return corpus


def evaluate(
    translator: Translator, pairs: list[Pair], *, beam_size: int = 5, alpha: float = 0.6
) -> dict[str, dict[str, Any]]:
    """Scores of greedy search and of beam search (where `beam_size` is above 1)."""
    searches: dict[str, Callable] = {"greedy": greedy_search}
    if beam_size > 1:
        beam = partial(beam_search, beam_size=beam_size, alpha=alpha)
        searches[f"beam {beam_size}"] = beam
    references = [target for _, target in pairs]
    results = {}
    for name, search in searches.items():
        hypotheses = translator.translate(
            [source for source, _ in pairs], search=search
        )
        scores = asdict(corpus_scores(hypotheses, references))
        signature = scores.pop("signature")
        scores["word_bleu"] = word_bleu(hypotheses, references)
        results[name] = scores | {"signature": signature}
    return results


def average_run(run: Path, last: int, output: Path) -> list[Path]:
    """Write a translator with the mean of a run's last checkpoints (§6.1)."""
    chosen = list_checkpoints(run)[-last:]
    if last < 1 or len(chosen) < last:
        raise InputError(
            f"{run} has {len(list_checkpoints(run))} checkpoints, not {last}"
        )
    translator = Translator.load(run)
    translator.model.load_state_dict(
        average_weights([c / WEIGHTS for c in chosen]), strict=False
    )
    settings = read_json(run / SETTINGS)
    translator.save(
        output, recipe=settings.get("recipe"), averaged=[c.name for c in chosen]
    )
    return chosen
