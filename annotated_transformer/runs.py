"""A training run from corpus to weights: recipe, folder, processes."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from annotated_transformer import corpora
from annotated_transformer.batches import EncodedPair
from annotated_transformer.checkpoints import (
    WEIGHTS,
    average_weights,
    list_checkpoints,
    load_weights,
)
from annotated_transformer.config import SearchConfig, TransformerConfig
from annotated_transformer.corpora import Pair, load_corpus
from annotated_transformer.decoding import beam_search, greedy_search
from annotated_transformer.devices import memory
from annotated_transformer.errors import InputError, warn
from annotated_transformer.files import read_json
from annotated_transformer.processes import Processes
from annotated_transformer.progress import HISTORY
from annotated_transformer.recipes import (
    MAY_CHANGE,
    PATHS,
    RECIPES,
    SETTINGS,
    Recipe,
    read_settings,
    recipe_for,
)
from annotated_transformer.risk import rewarded
from annotated_transformer.scores import corpus_scores, word_bleu
from annotated_transformer.special import EOS, UNK
from annotated_transformer.text import look_alike
from annotated_transformer.tokenizers import (
    SubwordTokenizer,
    Tokenizer,
    WordTokenizer,
    load_tokenizer,
    tokenizer_bytes,
)
from annotated_transformer.training import train
from annotated_transformer.transformer import Transformer, parameter_count
from annotated_transformer.translator import Translator, save_settings

FEW = 100  # sentences: below it, scores of two models can hardly be told apart


def first_recipe(
    run: Path, corpus: str | None, *, resume: bool, start_from: Path | None
) -> Recipe:
    """The recipe that options change: that of the run to resume, or of the corpus."""
    if resume and has_begun(run):
        return replace(recipe_of(run), model=read_settings(run).model)
    recipe = recipe_for(corpus or "grammar")
    if start_from is None:
        return recipe
    first = read_settings(start_from)
    recipe = replace(recipe, start_from=str(start_from), model=first.model)
    if first.recipe is None:
        return recipe
    source, target = first.recipe.source_lang, first.recipe.target_lang
    return replace(recipe, source_lang=source, target_lang=target)


def prepare(run: Path, recipe: Recipe, *, data_dir: Path | None, resume: bool) -> None:
    """Write a run's tokenizer and settings, so that bad input fails before training.

    Raises InputError if the folder holds anything but this run, and if a sentence is
    too long or the machine's memory too small. A run that has not begun is written
    anew.
    """
    begun = has_begun(run)
    if begun and not resume:
        raise InputError(
            f"{run} already holds a run: --resume continues it, "
            "--run names another folder"
        )
    pairs = load_splits(recipe, data_dir)
    warn_of_splits(pairs)
    tokenizer = load_tokenizer(run) if begun else first_tokenizer(recipe, pairs)
    encoded = {split: encode(part, tokenizer) for split, part in pairs.items()}
    warn_of_unknown(encoded["validation"])
    target = None if tokenizer.shared else tokenizer.target_vocab_size
    model = replace(
        recipe.model, vocab_size=tokenizer.source_vocab_size, tgt_vocab_size=target
    )
    for split, part in pairs.items():
        need_short(split, part, encoded[split], model.max_length)
    need_memory(model)
    recipe = located(recipe)
    if recipe.start_from:  # weights that do not fit are named now
        load_weights(Path(recipe.start_from) / WEIGHTS, Transformer(model))
    digests = {split: corpora.digest(part) for split, part in pairs.items()}
    if begun:
        need_same(run, model, recipe, digests)
    save_settings(run, model, tokenizer, recipe=recipe.settings(), digests=digests)


def has_begun(run: Path) -> bool:
    """Whether a run has left results in this folder. Raises InputError for others'."""
    names = files_in(run)
    if SETTINGS in names:
        recipe_of(run)  # or it is somebody's model
        return bool(names & {"checkpoints", WEIGHTS, HISTORY})
    if names:
        raise InputError(
            f"{run} holds {', '.join(sorted(names)[:3])}, but no {SETTINGS} of a run: "
            "name a new folder with --run"
        )
    return False


def files_in(folder: Path) -> set[str]:
    """The names in a folder, without hidden ones; none if there is no such folder."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder")
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return {name for name in names if not name.startswith(".")}


def recipe_of(run: Path) -> Recipe:
    """The recipe of a run. Raises InputError for a model that no run made."""
    recipe = read_settings(run).recipe
    if recipe is None:
        raise InputError(f"{run} holds a model that no run made: name another folder")
    return recipe


def load_splits(recipe: Recipe, data_dir: Path | None) -> dict[str, list[Pair]]:
    """The corpus of a recipe, by split, with the pairs that it adds to training."""
    splits = load_corpus(
        recipe.corpus,
        data_dir=data_dir,
        size=recipe.size,
        validation=recipe.validation,
        test=recipe.test,
    )
    if recipe.more:
        splits["train"] = [*splits["train"], *corpora.read_pairs(recipe.more)]
    return splits


def warn_of_splits(pairs: dict[str, list[Pair]]) -> None:
    """Warn of held-out splits that are small, or hold sources of the training split."""
    trained = {look_alike(source) for source, _ in pairs["train"]}
    for split, part in pairs.items():
        if split == "train":
            continue
        warn_if_few(split, part)
        known = sum(look_alike(source) in trained for source, _ in part)
        if known > len(part) / 100:
            warn(
                f"{known} of {len(part)} source sentences of the {split} split are in "
                "the training split, too: its scores will flatter"
            )


def warn_if_few(split: str, pairs: list[Pair]) -> None:
    """Warn of a split too small to measure by."""
    if len(pairs) < FEW:
        warn(f"the {split} split has {len(pairs)} sentences: too few for sure scores")


def warn_of_unknown(encoded: list[EncodedPair]) -> None:
    """Warn if most of the validation split is unknown to the tokenizer."""
    sides = zip(*encoded, strict=True)
    for side, rows in zip(("source", "target"), sides, strict=True):
        ids = [i for row in rows for i in row if i != EOS]
        if ids and 2 * ids.count(UNK) >= len(ids):
            warn(
                f"{ids.count(UNK):,} of {len(ids):,} {side} tokens of the validation "
                "split are unknown to the tokenizer: is it the same language as the "
                f"training split's, and the one that --{side}-lang names?"
            )


def first_tokenizer(recipe: Recipe, pairs: dict[str, list[Pair]]) -> Tokenizer:
    """That of the run to start from, or one learned from the training split."""
    if recipe.start_from:
        return load_tokenizer(recipe.start_from)
    if recipe.vocab_size:
        return SubwordTokenizer.train(pairs["train"], vocab_size=recipe.vocab_size)
    return WordTokenizer.train(
        pairs["train"], source_lang=recipe.source_lang, target_lang=recipe.target_lang
    )


def need_short(
    split: str, pairs: list[Pair], encoded: list[EncodedPair], longest: int
) -> None:
    """Raise InputError if a sentence is longer than the model's longest."""
    for number, (pair, ids) in enumerate(zip(pairs, encoded, strict=True), 1):
        n = max(map(len, ids))
        if n > longest:
            raise InputError(
                f"pair {number} of the {split} split has {n:,} tokens, and the model "
                f"reads {longest:,}: shorten or drop it ({pair[0][:40]!r}...)"
            )


def need_memory(config: TransformerConfig) -> None:
    """Raise InputError if weights, gradients, and Adam's moments exceed the memory."""
    needed, there = 16 * parameter_count(config), memory()
    if there is not None and needed > there:
        raise InputError(
            f"a model of this size takes {needed / 2**30:,.0f} GiB to train, and this "
            f"machine has {there / 2**30:,.0f}: choose smaller sizes"
        )


def located(recipe: Recipe) -> Recipe:
    """The recipe with full paths, which hold wherever it is used later."""
    names: dict[str, Any] = {
        name: corpora.resolved(getattr(recipe, name))
        for name in PATHS
        if getattr(recipe, name)
    }
    return replace(recipe, **names)


def need_same(
    run: Path, model: TransformerConfig, recipe: Recipe, digests: dict[str, str]
) -> None:
    """Raise InputError unless a resumed run goes on as it began; say what is new."""
    saved = read_settings(run)
    old, new = recipe_of(run).settings(), recipe.settings()
    pairs = [(asdict(saved.model), asdict(model)), (old, new)]
    found = [row for before, now in pairs for row in differences(before, now)]
    changed = [key for key, _, _ in differences(saved.digests or {}, digests)]
    may_change = MAY_CHANGE if changed else (*MAY_CHANGE, *PATHS)  # files may move
    different = [
        f"{key} ({before} there, {now} now)"
        for key, before, now in found
        if key not in may_change
    ]
    if different:
        raise InputError(
            f"{run} was started with other settings: {', '.join(different)}"
        )
    if changed:
        raise InputError(
            f"the {' and the '.join(changed)} split of {recipe.corpus} changed since "
            f"{run} was started: put it back, or train into another folder"
        )
    for key, before, now in found:
        curve = " and a new learning rate curve from here on" * (key == "steps")
        warn(f"{run} goes on with {key} {now} instead of {before}{curve}")


def differences(old: dict, new: dict) -> list[tuple[str, Any, Any]]:
    """Keys at any depth whose values differ, with both values."""
    found: list[tuple[str, Any, Any]] = []
    for key in new:
        if isinstance(new[key], dict) and isinstance(old.get(key), dict):
            found += differences(old[key], new[key])
        elif old.get(key) != new[key]:
            found.append((key, old.get(key), new[key]))
    return found


def identity(run: Path) -> str:
    """A SHA-256 of what determines a run's result, which its checkpoints note.

    What may change when it is resumed does not count, nor where its files lie.
    """
    settings = read_settings(run)
    recipe = recipe_of(run).settings()
    kept = {key: value for key, value in recipe.items() if key not in PATHS}
    kept["training"] = {
        key: value for key, value in recipe["training"].items() if key not in MAY_CHANGE
    }
    parts = [asdict(settings.model), kept, settings.digests]
    text = json.dumps(parts, sort_keys=True).encode()
    return hashlib.sha256(text + tokenizer_bytes(run)).hexdigest()


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
    recipe = recipe_of(run)
    pairs = load_splits(recipe, data_dir)
    tokenizer = load_tokenizer(run)
    torch.manual_seed(recipe.training.seed)
    translator = Translator(Transformer(read_settings(run).model), tokenizer)
    if recipe.start_from:
        load_weights(Path(recipe.start_from) / WEIGHTS, translator.model)
    train(
        translator.model,
        encode(pairs["train"], tokenizer),
        encode(pairs["validation"], tokenizer),
        recipe.training,
        run,
        score=greedy_scores(translator, pairs["validation"]),
        make_objective=rewarded(tokenizer),
        metric=recipe.metric,
        identity=identity(run),
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


def pairs_to_score(
    folder: Path, corpus: str | None, split: str | None, data_dir: Path | None
) -> tuple[str, str, list[Pair]]:
    """The corpus, the split and its pairs that `evaluate` was asked for.

    By default, the test split of the model's own corpus, and all of any other file.
    """
    recipe = read_settings(folder).recipe
    if corpus is None:
        if recipe is None:
            raise InputError(
                f"{folder / SETTINGS} names no corpus: name one with --corpus"
            )
        corpus = recipe.corpus
    own = recipe is not None and recipe.corpus in (corpus, corpora.resolved(corpus))
    if recipe and own and split != "all":
        splits = load_splits(replace(recipe, more=None), data_dir)
        fixed = {k: v for k, v in splits.items() if k != "train" or not recipe.more}
        need_unchanged(folder, fixed, corpus)
    elif corpus in RECIPES:
        splits = load_corpus(corpus, data_dir=data_dir)
    else:
        splits = {"all": corpora.read_pairs(corpus)}
    name = split or ("all" if "all" in splits else "test")
    if (corpus, name) == ("multi30k", "test"):
        name = "test_2016_flickr"
    if name not in splits:
        raise InputError(
            f"{corpus} has no split {name!r} here: choose {', '.join(splits)}"
        )
    return corpus, name, splits[name]


def need_unchanged(folder: Path, splits: dict[str, list[Pair]], corpus: str) -> None:
    """Raise InputError if the held-out splits are not those of the training run."""
    then = read_settings(folder).digests
    now = {split: corpora.digest(pairs) for split, pairs in splits.items()}
    if then and any(then[split] != now[split] for split in now):
        raise InputError(
            f"{corpus} changed since {folder} was trained, so its test split may hold "
            "sentences that were trained on: put the file back, or score another file"
        )


def evaluate(
    translator: Translator,
    pairs: list[Pair],
    *,
    beam_size: int = 5,
    alpha: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Scores of greedy search and of beam search (where `beam_size` is above 1).

    The length penalty `alpha` is the model's own unless it is given.
    """
    alpha = translator.alpha if alpha is None else alpha
    searches: dict[str, Callable] = {"greedy": greedy_search}
    if beam_size > 1:
        beam = partial(beam_search, beam_size=beam_size, alpha=alpha)
        searches[f"beam {beam_size}"] = beam
        translator.make_room(beam_size)
    references = [target for _, target in pairs]
    results = {}
    for name, search in searches.items():
        hypotheses = translator.translate(
            [source for source, _ in pairs], search=search
        )
        scores = asdict(corpus_scores(hypotheses, references))
        signature = scores.pop("signature")
        language = translator.target_lang
        scores["word_bleu"] = word_bleu(hypotheses, references, language=language)
        results[name] = scores | {"signature": signature}
    return results


def average_run(
    run: Path, last: int, output: Path, *, alpha: float | None = None
) -> list[Path]:
    """Write a translator with the mean of a run's last checkpoints (§6.1).

    A length penalty `alpha` that is given here becomes the model's own.

    Raises InputError if there are too few, or if the folder `output` holds anything but
    an average.
    """
    checkpoints = list_checkpoints(run)
    if not 1 <= last <= len(checkpoints):
        raise InputError(
            f"{run} has {len(checkpoints)} checkpoints: their last {last} cannot be "
            "averaged"
        )
    if files_in(output) and read_settings(output).averaged is None:
        raise InputError(
            f"{output} holds a model that is no average: name a new folder with "
            "--output"
        )
    chosen = checkpoints[-last:]
    translator = Translator.load(run)
    translator.model.load_state_dict(
        average_weights([c / WEIGHTS for c in chosen]), strict=False
    )
    settings = read_json(run / SETTINGS)
    kept: dict[str, Any] = {
        key: settings[key] for key in ("recipe", "digests") if key in settings
    }
    if alpha is not None:
        kept["search"] = {"alpha": SearchConfig(alpha=alpha).alpha}
    translator.save(output, **kept, averaged=[c.name for c in chosen])
    return chosen
