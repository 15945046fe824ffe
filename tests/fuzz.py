"""Hostile input for the command line: options, texts, and damaged folders.

    python -m tests.fuzz options --cases 1000 --seed 7

Each case is a call of the command line in this process. It may succeed (exit code 0) or
refuse (exit code 2, one line on stderr). Anything else is a fault: another exception,
more than `SECONDS`, or more than `GIB` of memory. Faults are printed as JSON.
"""

import argparse
import contextlib
import faulthandler
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from unittest import mock

from annotated_transformer import runs
from annotated_transformer.__main__ import main as command_line
from annotated_transformer.config import TrainingConfig, TransformerConfig
from annotated_transformer.grammar import grammar_corpus
from annotated_transformer.recipes import Recipe

SECONDS, GIB = 30, 8
MODEL = TransformerConfig(
    vocab_size=150, d_model=16, d_ff=24, n_heads=2, n_layers=1, norm="pre"
)
TRAINING = TrainingConfig(
    steps=2, batch_tokens=500, learning_rate=3e-3, warmup=2, validate_every=1
)

NUMBERS = (
    *("0", "-1", "1", "2", "3", "7", "0.5", "1.5", "1e-39", "1e-300", "1e20", "1e308"),
    *("1e999", "-1e999", "nan", "inf", "-inf", "4000", "1000000000", "2147483648"),
    *("9223372036854775807", "99999999999999999999", "0x10", "1_000", "", " ", "x"),
)
WORDS = ("post", "pre", "cpu", "auto", "cuda:7", "grammar", ".", "/", "\u00df", "-")
TRANSLATE = "--beam-size --alpha --temperature --top-k --top-p --seed --device".split()
TRAIN = (
    "--size --vocab-size --d-model --d-ff --n-heads --n-layers --dropout --norm "
    "--steps --batch-tokens --accumulate --learning-rate --warmup --smoothing "
    "--consistency --risk --validate-every --patience --keep --seed --device "
    "--validation --test --more --corpus --start-from"
).split()
BYTES = (b"", b"{}", b"[]", b"null", b"{", b"\xff\xfe", b"\0" * 64, b"[" * 10_000)
VALUES = (
    *(None, True, [], {}, "", "x", 0, -1, 1, 2, 3, 15, 32, 0.5, 1e-300, 1e308),
    *(10**5, 10**9, 2**31, 2**63, 10**30, [[[[]]]], {"a": {"b": 1}}, float("nan")),
)
TEXTS = (
    *("Hund ", "ein Mann schl\u00e4ft. ", "\u200d\u2028", "e\u0301", "\U0001f415 "),
    *("\u4e2d\u6587", "\u0643\u0644\u0628", "<unk>", "</s>", "\u2581", "\t", "\r"),
    *("?" * 50, "A" * 60, "\ufeff", "\x1b[31m", "--help", "-", "1" * 40, "\ud800"),
)


class TooLong(BaseException):
    """A case that does not end."""


def call(*arguments):
    """What a user sees of one call: nothing if all is well, or else the fault."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()

    def stop(*_):
        raise TooLong

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    code = 0
    try:
        with (
            mock.patch.object(sys, "argv", ["annotated-transformer", *arguments]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            command_line()
    except SystemExit as end:
        code = end.code or 0
    except TooLong:
        return f"no end after {SECONDS} seconds"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    finally:
        signal.alarm(0)
    errors = [line for line in err.getvalue().splitlines() if line.startswith("Error")]
    if code not in (0, 2):
        return f"exit code {code}"
    if "Traceback" in err.getvalue():
        return err.getvalue()[-300:]
    if code == 2 and not (errors or "Usage:" in err.getvalue()):
        return f"exit code 2 without a word: {err.getvalue()[-200:]}"
    return ""


def some(rng, options):
    """One to three of these options, each with a hostile value."""
    chosen = rng.sample(options, rng.randint(1, 3))
    return [
        f"{name}={rng.choice(NUMBERS if rng.random() < 0.9 else WORDS)}"
        for name in chosen
    ]


def translate_options(rng, home):
    """Options of `translate`."""
    return [
        "translate",
        "Ein Hund.",
        "--model",
        str(home / "run"),
        *some(rng, TRANSLATE),
    ]


def train_options(rng, home):
    """Options of `train`."""
    folder = home / f"new-{rng.random()}"
    small = "--size=60 --vocab-size=150 --d-model=16 --d-ff=24 --n-heads=2 --n-layers=1"
    short = "--batch-tokens=500 --steps=2 --warmup=1 --validate-every=1 --processes=1"
    return [
        "train",
        *small.split(),
        *short.split(),
        *some(rng, TRAIN),
        f"--run={folder}",
    ]


def texts(rng, home):
    """Sentences, as arguments or as a file."""
    text = "".join(rng.choices(TEXTS, k=rng.randint(0, 12)))
    if rng.random() < 0.5:
        return ["translate", "--model", str(home / "run"), "--", text]
    file = home / "text.txt"
    file.write_bytes(text.encode("utf-8", "surrogatepass") + rng.choice(BYTES))
    return ["translate", "--model", str(home / "run"), "--file", str(file)]


def places(value, path=()):
    """The keys of a JSON value at any depth."""
    children = value.items() if isinstance(value, dict) else []
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def damage_json(rng, path):
    """Replace or delete one value of a JSON object, at any depth."""
    value = json.loads(path.read_text("utf-8"))
    *parents, last = rng.choice(list(places(value)))
    inner = value
    for key in parents:
        inner = inner[key]
    if rng.random() < 0.2:
        del inner[last]
    else:
        inner[last] = rng.choice(VALUES)
    path.write_text(json.dumps(value), "utf-8")


def damage(rng, folder):
    """Spoil one file of a folder; returns what was done."""
    path = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
    data = path.read_bytes()
    kind = rng.choice(
        ["bytes", "cut", "flip", "gone", "folder", "fifo", "json", "json"]
    )
    if kind == "json" and path.suffix == ".json":
        damage_json(rng, path)
    elif kind == "cut":
        path.write_bytes(data[: rng.randrange(len(data) + 1)])
    elif kind == "flip":
        spot = rng.randrange(max(1, len(data)))
        path.write_bytes(data[:spot] + bytes([rng.randrange(256)]) + data[spot + 1 :])
    elif kind in ("gone", "folder", "fifo"):
        path.unlink()
        if kind == "folder":
            path.mkdir()
        if kind == "fifo":
            os.mkfifo(path)
    else:
        path.write_bytes(rng.choice(BYTES))
    return f"{path.relative_to(folder)}: {kind}"


def spoiled(rng, home):
    """A damaged copy of the run."""
    folder = home / "spoiled"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(home / "run", folder)
    return folder, damage(rng, folder)


def models(rng, home):
    """A damaged folder, to translate with."""
    folder, what = spoiled(rng, home)
    return ["translate", "Ein Hund.", f"--model={folder}"], what


def resumes(rng, home):
    """A damaged folder, to resume."""
    folder, what = spoiled(rng, home)
    steps = f"--steps={rng.choice([2, 3])}"
    return ["train", "--resume", "--processes=1", steps, f"--run={folder}"], what


GROUPS = {
    "translate": translate_options,
    "train": train_options,
    "texts": texts,
    "models": models,
    "resumes": resumes,
}


def faults(group, cases, seed):
    """What went wrong in so many cases of a group."""
    rng = random.Random(f"{group} {seed}")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        lines = ["\t".join(pair) for pair in grammar_corpus(60)["train"]]
        (home / "pairs.tsv").write_text("\n".join(lines), "utf-8")
        recipe = Recipe(
            corpus=str(home / "pairs.tsv"),
            model=MODEL,
            training=TRAINING,
            vocab_size=150,
        )
        with contextlib.redirect_stderr(io.StringIO()):
            runs.prepare(home / "run", recipe, data_dir=None, resume=False)
            runs.train_run(home / "run", None, {"device": "cpu"})
        for _ in range(cases):
            made = GROUPS[group](rng, home)
            arguments, what = made if isinstance(made, tuple) else (made, "")
            case = {"arguments": arguments, "damage": what}
            print(json.dumps(case), file=sys.stderr)  # in case that it ends us
            faulthandler.dump_traceback_later(SECONDS + 5, exit=True)
            if fault := call(*arguments):
                yield case | {"fault": fault}
            faulthandler.cancel_dump_traceback_later()


def main():
    """Run a group, and print its faults."""
    parser = argparse.ArgumentParser()
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with contextlib.suppress(ImportError, ValueError):  # Windows, or a lower limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (GIB << 30, GIB << 30))
    count = 0
    out = os.fdopen(os.dup(1), "w")  # a command that fails may close its own
    for fault in faults(options.group, options.cases, options.seed):
        print(json.dumps(fault), file=out, flush=True)
        count += 1
    sys.exit(bool(count))


if __name__ == "__main__":
    main()
