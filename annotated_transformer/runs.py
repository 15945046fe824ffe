"""A training run from corpus to weights: recipe, folder, processes."""

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from annotated_transformer.batches import EncodedPair
from annotated_transformer.checkpoints import (
    WEIGHTS,
    average_weights,
    list_checkpoints,
    read_json,
)
from annotated_transformer.config import SMALL, TINY, TransformerConfig
from annotated_transformer.corpora import Pair, load_corpus
from annotated_transformer.decoding import beam_search, greedy_search
from annotated_transformer.errors import InputError
from annotated_transformer.scores import corpus_scores, word_bleu
from annotated_transformer.tokenizers import (
    SubwordTokenizer,
    Tokenizer,
    WordTokenizer,
    load_tokenizer,
)
from annotated_transformer.training import Processes, TrainingConfig, train
from annotated_transformer.transformer import Transformer
from annotated_transformer.translator import SETTINGS, Translator

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
    """Everything that decides how a run ends, but for the number of processes.

    `vocab_size` is the number of subwords, or 0 for whole words; `size` is the number
    of grammar pairs to train on. The model's own vocabulary follows from the tokenizer.
    """

    corpus: str
    model: TransformerConfig = SMALL
    training: TrainingConfig = FOR_CAPTIONS
    metric: str = "bleu"
    vocab_size: int = 4_000
    size: int = 20_000


RECIPES = {
    "grammar": Recipe(
        corpus="grammar",
        model=TINY,
        training=TrainingConfig(
            steps=1_800,
            batch_tokens=1_600,
            learning_rate=3e-3,
            warmup=100,
            validate_every=600,
            clip=1.0,
        ),
        metric="exact_match",
        vocab_size=1_000,
    ),
    "multi30k": Recipe(corpus="multi30k"),
}


def recipe_for(corpus: str) -> Recipe:
    """The recipe for a corpus; a reader's own files take Multi30k's."""
    return RECIPES.get(corpus) or replace(RECIPES["multi30k"], corpus=corpus)


def as_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe as settings.json holds it, apart from the model."""
    return {key: value for key, value in asdict(recipe).items() if key != "model"}


def prepare(run: Path, recipe: Recipe, *, data_dir: Path | None, resume: bool) -> None:
    """Make the folder of a run: tokenizer and settings, all that can go wrong early.

    Raises InputError if the folder holds a run already (without `resume`), or one with
    other settings (with it).
    """
    pairs = load_corpus(recipe.corpus, data_dir=data_dir, size=recipe.size)
    exists = (run / SETTINGS).exists()
    if exists and not resume:
        raise InputError(
            f"{run} holds a run already: --resume goes on with it, "
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
        Translator(Transformer(model), tokenizer).save_settings(
            run, recipe=as_json(recipe)
        )
        return
    saved = read_json(run / SETTINGS)
    now = {"model": asdict(model), "recipe": as_json(recipe)}
    different = [
        f"{key} ({old} there, {new} now)"
        for part in now
        for key, old, new in differences(saved.get(part, {}), now[part])
    ]
    if different:
        raise InputError(f"{run} was begun with other settings: {', '.join(different)}")


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
    """Text to ids, on both sides."""
    return [
        (tokenizer.encode_source(source), tokenizer.encode_target(target))
        for source, target in pairs
    ]


def work(run: Path, data_dir: Path | None, resume: bool, tensorboard: bool) -> None:
    """Train in a prepared folder: what each process of a run does."""
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
        resume=resume,
        tensorboard=tensorboard,
    )


def greedy_scores(
    translator: Translator, pairs: list[Pair]
) -> Callable[[Processes], dict[str, float]]:
    """Validation by translating: each process takes its share of the sentences."""

    def score(group: Processes) -> dict[str, float]:
        share = [source for source, _ in pairs[group.rank :: group.count]]
        parts = group.gather(translator.translate(share, search=greedy_search))
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


def launch(
    run: Path, *, data_dir: Path | None, resume: bool, tensorboard: bool, processes: int
) -> None:
    """Train in a prepared folder, in this process or in several that share each batch.

    Under torchrun this process is one of those already. Several on one machine are
    started by torchrun's own launcher, one thread each on a CPU.
    """
    arguments = (run, data_dir, resume, tensorboard)
    if processes == 1 or "WORLD_SIZE" in os.environ:
        return work(*arguments)
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    threads = max(1, (os.cpu_count() or 1) // processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, guarded_work)(*arguments)
    except ChildFailedError:
        raise SystemExit(2) from None  # the process that failed has said why


def guarded_work(*arguments: Any) -> None:
    """`work` in a child process: bad input ends it with one line, like the parent."""
    try:
        work(*arguments)
    except (InputError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def default_processes() -> int:
    """One per core on a CPU, at most four; one per GPU where there are any."""
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: the cores this may use
    return min(4, len(affinity(0)) if affinity else os.cpu_count() or 1)


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
