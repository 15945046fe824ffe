"""One model in many forms: what each weighs, how fast it is, what it changes.

Rows: `form`, `seed` (the round: forms take turns, so that a busy moment hits them
alike). Measures:

- `megabytes` on the disk: weights of PyTorch's forms, folders of the others;
- `first_sentence`: CPU-seconds of a new process from start to end, with one sentence
  translated. PyTorch's forms are made from one file and begin alike: "float32" stands
  for all of them;
- `one` and `many`: sentences per CPU-second with one thread, one by one (the first 100)
  and in batches of 64 (all). The browser's engine reads one at a time: no `many`;
- `bleu` of greedy translations of test_2016_flickr; `difference` from float32's, `low`
  and `high` (paired bootstrap, 95 %); `changed`: sentences of 1,000 unlike float32's.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from annotated_transformer.batches import collate
from annotated_transformer.corpora import multi30k
from annotated_transformer.decoding import greedy_search
from annotated_transformer.errors import InputError
from annotated_transformer.export import export, quiet, size
from annotated_transformer.export.to_ctranslate2 import search_with
from annotated_transformer.export.to_onnx import OnnxModel
from annotated_transformer.lessons import (
    ATTENTIONS,
    all_heads,
    bleu_gain,
    edited,
    off,
    sentence_losses,
)
from annotated_transformer.pruning import prune
from annotated_transformer.quantization import quantize_model
from annotated_transformer.runs import encode
from annotated_transformer.scores import corpus_scores
from annotated_transformer.studies import Measures, Settings, Study
from annotated_transformer.transformer import Transformer
from annotated_transformer.translator import PRETRAINED, Translator

ENGINE = Path(__file__).parents[2] / "book" / "alive" / "translate.mjs"
COLD = (
    "import sys; from annotated_transformer.decoding import greedy_search as s; "
    "from annotated_transformer.translator import Translator as T; "
    "print(*T.pretrained().translate(sys.argv[1:], search=s))"
)
FORMS = (
    "float32",
    "fast path",  # float32 as `Translator.translate` multiplies it on this processor
    "bfloat16",
    "int8 by hand",  # rounded weights, arithmetic in float32
    "int8 PyTorch",  # its dynamic quantization
    "12 heads fewer",
    "onnx float32",
    "onnx int8",
    "ctranslate2 float32",
    "ctranslate2 int8",
    "browser",
)
ALONE = 100  # sentences translated one by one
RANKED_ON = 200  # captions of the validation split
Translate = Callable[[Sequence[str]], list[str]]


@cache
def split() -> tuple[list[str], list[str]]:
    """The sources of the test split, and their references."""
    sources, references = zip(*multi30k()["test_2016_flickr"], strict=True)
    return list(sources), list(references)


@cache
def exported(format: str, quantization: str) -> Path:
    """The shipped model's folder for a runtime, made once a process."""
    folder = Path(tempfile.mkdtemp()) / "model"
    shipped = Translator.pretrained()
    return export(shipped, folder, format=format, quantization=quantization)


def greedily(translator: Translator) -> Translate:
    """Greedy translations as the weights say: the fast path would round products."""

    def translate(sentences: Sequence[str]) -> list[str]:
        src = collate([(translator.encode(text), []) for text in sentences]).src
        outputs = greedy_search(translator.model, src)
        return [translator.tokenizer.decode(ids) for ids in outputs]

    return translate


def dynamic_int8(model: Transformer) -> Transformer:
    """PyTorch's dynamic int8 of all products that are a module's own.

    Cross-attention takes its matrix apart, and the output's belongs to the embeddings:
    these stay floats. Deprecated in PyTorch; InputError where it is gone.
    """
    quantization: Any = getattr(torch.ao, "quantization", None)
    if not hasattr(quantization, "quantize_dynamic"):
        raise InputError("this PyTorch has no dynamic quantization any more: use 2.13")
    names = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and "cross_attention.query_key_value" not in name
    }
    with quiet():
        return quantization.quantize_dynamic(model, names)


def saved_bytes(model: nn.Module) -> int:
    """The bytes of what PyTorch would save of a model."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


@cache
def least_missed(n: int) -> list[tuple[str, int]]:
    """The n heads whose silence, one head at a time, adds least to validation's loss.

    An attention keeps its last head.
    """
    translator = Translator.pretrained()
    model = translator.model
    batch = collate(encode(multi30k()["validation"][:RANKED_ON], translator.tokenizer))
    cost = {
        (kind, layer, head): sentence_losses(
            edited(model, [(kind, layer, head)], off), batch
        )[0].sum()
        for kind, layer, head in all_heads(model)
    }
    chosen: list[tuple[str, int]] = []
    for kind, layer, head in sorted(cost, key=lambda head: cost[head].item()):
        name = ATTENTIONS[kind].format(layer)
        others = sum(name == other for other, _ in chosen)
        if len(chosen) < n and others < model.config.n_heads - 1:
            chosen.append((name, head))
    return chosen


def by_pytorch(form: str) -> tuple[Translate, float]:
    """PyTorch's forms: how to translate, and the bytes of the weights."""
    translator = Translator.pretrained()
    translator.batch_tokens = 100_000  # a batch is whole
    if form == "fast path":
        n_bytes = weight_bytes(translator.model)
        return partial(translator.translate, search=greedy_search), n_bytes
    if form == "int8 by hand":
        return greedily(translator), quantize_model(translator.model)
    if form == "int8 PyTorch":
        translator.model = dynamic_int8(translator.model)
        return greedily(translator), saved_bytes(translator.model)
    if form == "bfloat16":
        translator.model.bfloat16()
    if form.endswith("heads fewer"):
        translator.model = prune(translator.model, least_missed(int(form.split()[0])))
    return greedily(translator), weight_bytes(translator.model)


def weight_bytes(model: nn.Module) -> float:
    """The bytes of all parameters."""
    return float(sum(p.nbytes for p in model.parameters()))


def by_runtime(format: str, quantization: str) -> tuple[Translate, float]:
    """An exported form: how to translate, and the bytes of its folder."""
    folder, translator = exported(format, quantization), Translator.pretrained()
    translator.batch_tokens = 100_000
    if format == "onnx":
        model: Any = OnnxModel(folder)
        search: Any = lambda _, src: greedy_search(model, src)  # noqa: E731
    else:
        search = search_with(folder, translator, alpha=translator.alpha)
    return partial(translator.translate, search=search), size(folder)


def speeds(translate: Translate) -> tuple[list[str], float, float]:
    """All translations, and sentences per CPU-second: alone, and 64 at a time."""
    sources = split()[0]
    translate(sources[:2])  # what is loaded late is loaded now
    started = time.process_time()
    for source in sources[:ALONE]:
        translate([source])
    alone = ALONE / (time.process_time() - started)
    started = time.process_time()
    texts = [
        text
        for i in range(0, len(sources), 64)
        for text in translate(sources[i : i + 64])
    ]
    return texts, alone, len(sources) / (time.process_time() - started)


def by_engine(sources: Sequence[str]) -> tuple[list[str], float]:
    """Translations by the engine of the book's pages, run by node, and CPU-seconds."""
    return new_process(["node", str(ENGINE)], "\n".join(sources) + "\n")


def new_process(
    command: list[str], given: str | None = None
) -> tuple[list[str], float]:
    """The lines that a new process prints, and all its CPU-seconds."""

    def seconds() -> float:
        times = os.times()  # of children: those that have ended
        return times.children_user + times.children_system

    started = seconds()
    run = subprocess.run(
        command,
        input=given,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return run.stdout.splitlines(), seconds() - started


def package_speed(form: str) -> tuple[dict[str, float], tuple[str, ...]]:
    """Any other form: bytes and speed, and all translations."""
    format, _, quantization = form.partition(" ")
    command = None
    if format in ("onnx", "ctranslate2"):
        translate, n_bytes = by_runtime(format, quantization)
        script = exported(format, quantization) / "translate.py"
        command = [sys.executable, str(script), split()[0][0]]
    else:
        translate, n_bytes = by_pytorch(form)
    if form == "float32":
        command = [sys.executable, "-c", COLD, split()[0][0]]
    texts, one, many = speeds(translate)
    speed = {"megabytes": n_bytes / 1e6, "one": one, "many": many}
    if command:
        speed["first_sentence"] = new_process(command)[1]
    return speed, tuple(texts)


@cache
def quality(texts: tuple[str, ...], plain: tuple[str, ...]) -> Measures:
    """BLEU, and what has changed from float32's translations."""
    references = split()[1]
    difference, low, high = bleu_gain(plain, texts, references)
    scores = {
        "bleu": corpus_scores(texts, references).bleu,
        "difference": difference,
        "low": low,
        "high": high,
    }
    return {
        **{name: round(value, 2) for name, value in scores.items()},
        "changed": sum(a != b for a, b in zip(plain, texts, strict=True)),
    }


@cache
def plain_texts() -> tuple[str, ...]:
    """What float32 makes of the test split."""
    return tuple(speeds(by_pytorch("float32")[0])[0])


@cache
def engine_texts() -> tuple[str, ...]:
    """What the browser's engine makes of it."""
    return tuple(by_engine(split()[0])[0])


def engine_speed() -> dict[str, float]:
    """The browser's form: bytes and speed."""
    if not (shutil.which("node") and ENGINE.exists()):
        raise InputError("the browser's form needs node, and a clone of the course")
    first, sources = by_engine(split()[0][:1])[1], split()[0][:ALONE]
    return {
        "megabytes": (size(PRETRAINED) + size(ENGINE.parent)) / 1e6,
        "first_sentence": first,
        "one": (ALONE - 1) / (by_engine(sources)[1] - first),
    }


def measure(run: Settings) -> Measures:
    """One form, once."""
    form = run["form"]
    if form == "browser":
        speed, texts = engine_speed(), engine_texts()
    else:
        speed, texts = package_speed(form)
    speed = {name: round(value, 3) for name, value in speed.items()}
    return {**speed, **quality(texts, plain_texts())}


STUDY = Study(
    about="the shipped model in eleven forms: bytes, seconds, sentences per CPU-second "
    "with one thread, and BLEU on test_2016_flickr, in three rounds",
    runs=[{"form": form, "seed": seed} for seed in range(3) for form in FORMS],
    measure=measure,
)
