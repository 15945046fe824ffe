"""Compare the package's speed and memory with other libraries: `python -m benchmarks`.

Training: tokens per CPU-second of whole steps (forward, label-smoothed loss, backward,
Adam) on 64 pairs of 30 + 30 tokens; target tokens count. Memory: what such steps add to
a process at its peak. Decoding: sentences of 30 tokens per CPU-second, each into 40 new
tokens exactly, over equal weights.

All systems have equal sizes and one thread, and take a turn in every round. `ours /
theirs` is the ratio of the median speeds; the median of the ratios of single rounds is
beside it, and a run is steady when the two agree. (For memory it is the ratio of MiB:
less is better.) `of peak` is the arithmetic speed of a step, its operations counted by
formula, as a fraction of the fastest large matrix product of the same run.

Ours runs as `train` and `Translator` run it, with `devices.fast_path`. Another
library stands as its documentation has it, and once more with "medium": the same
switch, which on a CPU hands matrix products to oneDNN, and plain attention, which is
faster with it.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from annotated_transformer.config import TransformerConfig
from annotated_transformer.speed import (
    interleave,
    product,
    random_batch,
    training_flops,
)
from benchmarks.decoders import decoders
from benchmarks.measure import medium, training_memory
from benchmarks.peers import MARIAN, OURS, PEERS, TORCH, X_TRANSFORMERS, training_step

SIZES = TransformerConfig(
    vocab_size=8_000, d_model=256, d_ff=1_024, n_heads=8, n_layers=3, max_length=128
)
NEEDED = ("transformers", "x_transformers", "ctranslate2", "psutil")
BATCH = (64, 30)  # training: sentences, tokens of each
SENTENCES, LENGTH, NEW_TOKENS = 100, 30, 40  # decoding
RATIO = "ours / theirs"

Report = dict[str, list[dict[str, Any]]]  # title of a table to its rows


def speeds(times: dict[str, list[float]], unit: str, count: int) -> list[dict]:
    """A row for each system: its speed, and how many times as fast ours is."""
    rows = []
    for name, seconds in times.items():
        ratios = [b / a for a, b in zip(times[OURS], seconds, strict=True)]
        rows.append(
            {
                "system": name,
                f"{unit} / CPU-second": count / median(seconds),
                RATIO: median(seconds) / median(times[OURS]),
                f"{RATIO}, by rounds": median(ratios),
            }
        )
    return rows


def memory(rounds: int) -> Report:
    """Peak memory of training; one round, since it hardly varies."""
    c = replace(SIZES, dropout=0.1)
    mib = {name: training_memory(name, c, BATCH) for name in PEERS}
    rows = [
        {"system": name, "MiB": value, RATIO: mib[OURS] / value}
        for name, value in mib.items()
    ]
    return {"Memory of training": rows}


def training(rounds: int) -> Report:
    """Speed of training, with and without dropout."""
    batch, report = random_batch(SIZES, *BATCH), {}
    for dropout in (0.1, 0.0):
        c = replace(SIZES, dropout=dropout)
        models = {name: build(c) for name, build in PEERS.items()}
        plain = {TORCH: models[TORCH], MARIAN: PEERS[MARIAN](c, "eager")}
        plain[X_TRANSFORMERS] = PEERS[X_TRANSFORMERS](c, "explicit")
        tasks = {name: training_step(model, batch) for name, model in models.items()}
        for name, model in plain.items():
            tasks[f"{name}, medium"] = medium(training_step(model, batch))
        tasks |= {"product": product(2_048), "medium": medium(product(2_048))}
        times = interleave(tasks, rounds)
        peak = 2 * 2_048**3 / min(times.pop("product") + times.pop("medium"))
        rows = speeds(times, "tokens", BATCH[0] * BATCH[1])
        for row in rows:
            model = models[row["system"].removesuffix(", medium")]
            learned = [p.numel() for p in model.parameters() if p.requires_grad]
            seconds = median(times[row["system"]])
            row["of peak"] = training_flops(c, *BATCH) / seconds / peak
            row["parameters"] = sum(learned)
        report[f"Training, dropout {dropout} (peak {peak / 1e9:.0f} GFLOP/s)"] = rows
    return report


def decoding(rounds: int) -> Report:
    """Speed of greedy decoding and beam search."""
    systems = decoders(SIZES, random_batch(SIZES, SENTENCES, LENGTH).src, NEW_TOKENS)
    report = {}
    for title, beam_size in (("Greedy decoding", 1), ("Beam search, 4 beams", 4)):
        tasks: dict[str, Callable[[], object]]
        tasks = {name: partial(decode, beam_size) for name, decode in systems.items()}
        tasks["generate, medium"] = medium(tasks.pop("generate, eager"))
        report[title] = speeds(interleave(tasks, rounds), "sentences", SENTENCES)
    return report


PARTS = {"memory": memory, "training": training, "decoding": decoding}


def cell(value: Any) -> str:
    """A number with the digits that matter."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else value


def markdown(title: str, rows: list[dict]) -> str:
    """One table."""
    lines = [rows[0], ["---"] * len(rows[0])]
    lines += [[cell(value) for value in row.values()] for row in rows]
    return "\n".join([f"### {title}\n", *(f"| {' | '.join(x)} |" for x in lines), ""])


def main() -> None:
    """Measure, and print tables or JSON."""
    about = "Compare speed and memory with other libraries."
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=about)
    parser.add_argument("--only", choices=PARTS, help="measure this part alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    arguments = parser.parse_args()
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        sys.exit(f'{", ".join(missing)} missing: pip install -e ".[bench]"')
    torch.set_num_threads(1)
    torch.manual_seed(0)
    report: Report = {}
    for name, part in PARTS.items():
        if arguments.only in (None, name):
            tables = part(arguments.rounds)
            report |= tables
            if not arguments.json:
                for title, rows in tables.items():
                    print(markdown(title, rows), flush=True)
    if arguments.json:
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
