"""The ladder of chapter 20 on any device: `python -m benchmarks.ladder --device cuda`.

One training step, from a loop over positions to fused kernels; then in bfloat16, and
compiled. Every rung takes a turn in every round. A GPU is waited for before a clock is
read. `of peak` is the operations on real tokens, counted by formula, over those that a
large product reaches on the same device in the same run, in float32 or in bfloat16,
whichever is faster there.
"""

import argparse
import time
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from annotated_transformer.batches import EncodedPair
from annotated_transformer.config import TransformerConfig
from annotated_transformer.devices import choose_device, compile_stacks, fast_products
from annotated_transformer.grammar import grammar_corpus
from annotated_transformer.ladder import epoch, ladder
from annotated_transformer.speed import Task, interleave, pair_flops, product
from annotated_transformer.studies import processor
from annotated_transformer.terminal import one_line_errors
from annotated_transformer.transformer import Transformer
from annotated_transformer.translator import Translator
from benchmarks.__main__ import markdown

SIZES = TransformerConfig(
    vocab_size=4_000, d_model=128, d_ff=512, n_heads=4, n_layers=2, dropout=0.0
)


def captions(number: int) -> list[EncodedPair]:
    """Sentences of the grammar in the shipped model's pieces."""
    translator = Translator.pretrained()
    encode_target = translator.tokenizer.encode_target
    texts = grammar_corpus(number)["train"]
    return [(translator.encode(src), encode_target(tgt)) for src, tgt in texts]


def rungs(
    c: TransformerConfig, pairs: list[EncodedPair], size: int, device: torch.device
) -> dict[str, Task]:
    """A pass over the pairs on each rung; the last two go beyond the chapter's."""
    tasks: dict[str, Task] = {}
    steps = ladder(device.type)
    for name, rung in steps.items():
        tasks[name] = epoch(rung, Transformer(c).to(device), pairs, size)
    top = steps["length buckets"]
    half = torch.autocast(device.type, torch.bfloat16)
    tasks["bfloat16"] = half(epoch(top, Transformer(c).to(device), pairs, size))
    if device.type == "cuda":
        model = Transformer(c).to(device)
        compile_stacks(model.encoder, model.decoder)
        tasks["torch.compile"] = half(epoch(top, model, pairs, size))
    return tasks


def waited_for(task: Task, device: torch.device) -> Task:
    """The same task, which ends when the device has done its work."""
    if device.type != "cuda":
        return task

    def run() -> None:
        task()
        torch.cuda.synchronize(device)

    return run


def measure(
    c: TransformerConfig, sentences: int, size: int, rounds: int, device: torch.device
) -> list[dict[str, Any]]:
    """A row for each rung."""
    pairs, n = captions(sentences), 1_024 if device.type == "cpu" else 8_192
    tasks = rungs(c, pairs, size, device)
    tasks["product"] = fast_products(device)(product(n, device))
    half = torch.autocast(device.type, torch.bfloat16)
    tasks["product in bfloat16"] = half(product(n, device))
    waiting = {name: waited_for(task, device) for name, task in tasks.items()}
    times = interleave(waiting, rounds, time.perf_counter)
    peak = 2 * n**3 / min(times.pop("product") + times.pop("product in bfloat16"))
    work = 3 * sum(pair_flops(c, len(src), len(tgt)) for src, tgt in pairs)
    tokens, lowest = sum(len(tgt) for _, tgt in pairs), next(iter(times.values()))
    return [
        {
            "rung": name,
            "tokens / second": tokens / median(seconds),
            "of peak": work / median(seconds) / peak,
            "times the loop": median(lowest) / median(seconds),
        }
        for name, seconds in times.items()
    ]


def main() -> None:
    """Read the command line, measure, and print a table."""
    about = "Climb from a loop over positions to fused kernels."
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ladder", description=about
    )
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, ... (default: auto)"
    )
    parser.add_argument("--width", type=int, default=SIZES.d_model, help="d_model")
    parser.add_argument("--sentences", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64, help="sentences of a batch")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with one_line_errors():
        device = choose_device(options.device)
        torch.set_num_threads(1)
        c = replace(SIZES, d_model=options.width, d_ff=4 * options.width)
        rows = measure(c, options.sentences, options.batch, options.rounds, device)
        gpu = device.type == "cuda"
        name = torch.cuda.get_device_name(device) if gpu else processor()
        print(markdown(f"{name}, torch {torch.__version__}", rows))


if __name__ == "__main__":
    main()
