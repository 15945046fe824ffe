"""One model in many forms: what each weighs, how fast it is, what it changes.

Rows: `form`, `seed` (the round: forms take turns, so that a busy moment hits them
alike). Measures: `megabytes` on the disk; `first_word`, CPU-seconds from the start of a
process to its end, with one sentence translated; `one` and `many`, sentences per
CPU-second with one thread, alone and in batches of 64; `bleu` of greedy translations of
test_2016_flickr; `difference` from float32's, `low` and `high` (paired bootstrap,
95 %); `changed`, the sentences of 1,000 that are not float32's. The browser's engine
takes one sentence at a time: its `many` is its `one`.
"""

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

from annotated_transformer.corpora import multi30k
from annotated_transformer.decoding import greedy_search
from annotated_transformer.errors import InputError
from annotated_transformer.export import export, size
from annotated_transformer.export.to_ctranslate2 import search_with
from annotated_transformer.export.to_onnx import OnnxModel
from annotated_transformer.lessons import bleu_gain
from annotated_transformer.quantization import quantize_model
from annotated_transformer.scores import corpus_scores
from annotated_transformer.studies import Measures, Settings, Study
from annotated_transformer.translator import PRETRAINED, Translator

ENGINE = Path(__file__).parents[2] / "book" / "alive" / "translate.mjs"
FIRST = "Ein Mann, der einen roten Hut trägt, spielt Gitarre."
COLD = (
    "import sys; from annotated_transformer.decoding import greedy_search as s; "
    "from annotated_transformer.translator import Translator as T; "
    "print(*T.pretrained().translate(sys.argv[1:], search=s))"
)
FORMS = (
    "float32",
    "half",
    "int8 by hand",
    "onnx float32",
    "onnx int8",
    "ctranslate2 float32",
    "ctranslate2 int8",
    "browser",
)
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


def by_package(form: str) -> tuple[Translate, float]:
    """PyTorch's forms: how to translate, and the bytes of the weights."""
    translator = Translator.pretrained()
    translator.batch_tokens = 100_000  # a batch is whole
    n_bytes = 4.0 * sum(p.numel() for p in translator.model.parameters())
    if form == "half":
        translator.model.bfloat16()
        n_bytes /= 2
    if form == "int8 by hand":
        n_bytes = quantize_model(translator.model)
    return partial(translator.translate, search=greedy_search), n_bytes


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
    for source in sources[:100]:
        translate([source])
    alone = 100 / (time.process_time() - started)
    started = time.process_time()
    texts = [
        text
        for i in range(0, len(sources), 64)
        for text in translate(sources[i : i + 64])
    ]
    return texts, alone, len(sources) / (time.process_time() - started)


def in_browser() -> tuple[list[str], float, float]:
    """The same of the engine of the book's pages, run by node."""
    given = "\n".join(split()[0]) + "\n"
    started = children_seconds()
    run = subprocess.run(
        ["node", str(ENGINE)], input=given, capture_output=True, text=True, check=True
    )
    speed = len(split()[0]) / (children_seconds() - started)
    return run.stdout.splitlines(), speed, speed


def cold_start(command: list[str], given: str | None = None) -> float:
    """CPU-seconds of a new process that translates one sentence."""
    started = children_seconds()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        command,
        input=given,
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return children_seconds() - started


def children_seconds() -> float:
    """The CPU time of all processes that this one has started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


@cache
def quality(texts: tuple[str, ...], plain: tuple[str, ...]) -> Measures:
    """BLEU, and what has changed from float32's translations."""
    references = split()[1]
    difference, low, high = bleu_gain(plain, texts, references)
    return {
        "bleu": corpus_scores(texts, references).bleu,
        "difference": difference,
        "low": low,
        "high": high,
        "changed": sum(a != b for a, b in zip(plain, texts, strict=True)),
    }


@cache
def plain_texts() -> list[str]:
    """What float32 makes of the test split."""
    return speeds(by_package("float32")[0])[0]


def measure(run: Settings) -> Measures:
    """One form, once."""
    form = run["form"]
    format, _, quantization = form.partition(" ")
    if form == "browser":
        if not (shutil.which("node") and ENGINE.exists()):
            raise InputError("the browser's form needs node, and a clone of the course")
        n_bytes: float = size(PRETRAINED) + size(ENGINE.parent)
        texts, one, many = in_browser()
        seconds = cold_start(["node", str(ENGINE)], FIRST + "\n")
    elif format in ("onnx", "ctranslate2"):
        translate, n_bytes = by_runtime(format, quantization)
        texts, one, many = speeds(translate)
        script = exported(format, quantization) / "translate.py"
        seconds = cold_start([sys.executable, str(script), FIRST])
    else:
        translate, n_bytes = by_package(form)
        texts, one, many = speeds(translate)
        seconds = cold_start([sys.executable, "-c", COLD, FIRST])
    return {
        "megabytes": n_bytes / 1e6,
        "first_word": seconds,
        "one": one,
        "many": many,
        **quality(tuple(texts), tuple(plain_texts())),
    }


STUDY = Study(
    about="the shipped model in eight forms: bytes, seconds, sentences per CPU-second "
    "with one thread, and BLEU on test_2016_flickr, in three rounds",
    runs=[{"form": form, "seed": seed} for seed in range(3) for form in FORMS],
    measure=measure,
)
