"""Make the model that ships: weights in half precision, history, scores, model card.

    python tools/ship.py MODEL RUN... [--before FOLDER]

MODEL is the folder of an average, and each RUN one of the runs that led to it, in
order: for the commands on the card, which `RECIPE` below holds,

    python tools/ship.py runs/third-average runs/first runs/second runs/third

`--before` is a copy of the model that shipped before, to compare with on the same
sentences.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from annotated_transformer.corpora import Pair, multi30k, sample_captions
from annotated_transformer.decoding import beam_search
from annotated_transformer.errors import InputError
from annotated_transformer.files import read_json, whole_or_nothing, write_json
from annotated_transformer.progress import HISTORY, read_history
from annotated_transformer.recipes import Recipe, read_settings
from annotated_transformer.runs import evaluate
from annotated_transformer.text import normalize
from annotated_transformer.transformer import parameter_count
from annotated_transformer.translator import PRETRAINED, SETTINGS, Translator

CARD, SCORES, PAIRED = "README.md", "scores.json", "paired.json"
TRIED = Path(__file__).with_name("tried.md")
COUNTS = ("step", "epoch", "tokens", "minutes", "cpu_minutes")
KEPT = ("lesson.json",)  # of other tools, in the same folder
TEST, BEAM, RESAMPLES = "test_2016_flickr", 5, 1_000
RECIPE = """\
annotated-transformer train --corpus multi30k --run runs/first \\
  --dropout 0.3 --steps 8000
annotated-transformer average runs/first
annotated-transformer train --corpus multi30k --run runs/second \\
  --start-from runs/first-average --steps 4800 --learning-rate 0.0015 \\
  --warmup 100 --seed 1
annotated-transformer average runs/second
annotated-transformer train --corpus multi30k --run runs/third \\
  --start-from runs/second-average --risk 40 --batch-tokens 1000 --steps 100 \\
  --learning-rate 0.0003 --warmup 20 --validate-every 25 --seed 1
annotated-transformer average runs/third --last 2 --alpha 1.2
"""
TEXT = """\
# Model card: German to English

The translator that ships with the course. Trained from scratch on a laptop-sized
machine, by the package's own commands, on one corpus; no other text, no other weights.

| | |
| --- | --- |
| model | {parameters:,} parameters: d_model {d_model}, {n_heads} heads, \
d_ff {d_ff}, {n_layers} + {n_layers} {norm}-norm layers, \
one matrix for both embeddings and the output |
| vocabulary | {vocab_size:,} subwords (BPE), German and English in one, \
from the training split alone |
| data | Multi30k, 29,000 training pairs of German and English image captions \
(Elliott et al. 2016, [arXiv 1605.00459](https://arxiv.org/abs/1605.00459)) |
| training | {stages} runs, each from the average of the one before: {tokens:,} target \
tokens in all, {epoch} epochs; dropout {dropout} |
| cost | {cpu_minutes:.0f} CPU-minutes on each of two cores; no GPU |
| search | length penalty {alpha}, chosen on the validation split with beam 5, as \
scored below; `translate` keeps 4 hypotheses |
| file | half precision; computes in single precision |

## Scores

sacreBLEU, cased and detokenized. Everything was chosen on the validation split; the
test split was scored once.

{scores}

`BLEU, words` counts lowercased spaCy words, as in tutorials on sequence-to-sequence
models. Signature: `{signature}`

### Beside the model that shipped before

The same sentences, translated by both with beam {beam}, each with its own length
penalty; `captions` and `outside` are the package's own 120 samples. In brackets, 95 %
intervals over {resamples:,} resampled sets of sentences; last, p of sacreBLEU's paired
bootstrap (Koehn 2004).

{paired}

## Training

{training}

Minimum risk raises the model's own translations that have more BLEU than their
neighbors (`annotated_transformer/risk.py`); the other runs make the smoothed loss
small. Validation, greedy, before averaging. Updates, tokens (target tokens) and minutes
(CPU time on each of two cores) go on counting from run to run.

{curve}

## Make it again

The two cores of a laptop need about an hour. (The first run was trained before the
others, on another processor, and the second began from its average in half precision:
expect the same scores up to noise, not the same weights.)

```sh
{recipe}python tools/ship.py runs/third-average runs/first runs/second runs/third
annotated-transformer evaluate --corpus multi30k
```

The last line scores the weights in this folder; on another kind of processor the last
digits may differ.

{tried}
## Limits

It knows image captions: one sentence in the present tense about what is seen.
Questions, news, names and proverbs come out wrong, some of them fluent and some as
nonsense. It repeats what its captions assume about people, their sex and their origin.
Do not use it where a mistake costs something.

## License

Multi30k is distributed under the terms of Flickr30k, for non-commercial research and
education ([its maintainers' answer](https://github.com/multi30k/dataset/issues/8)). The
captions are not included. These weights were learned from them: use them under the same
terms. The code is under the MIT license.
"""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of the average that ships")
    parser.add_argument("runs", type=Path, nargs="+", help="its runs, first to last")
    parser.add_argument("--before", type=Path, help="folder of the model before")
    parser.add_argument("--data-dir", type=Path, help="folder with Multi30k's files")
    arguments = parser.parse_args()

    corpus = multi30k(arguments.data_dir)
    with whole_or_nothing(PRETRAINED) as folder:
        translator = Translator.load(arguments.model)
        translator.model.half()
        translator.save(folder, **settings(arguments.model, arguments.runs))
        translator = Translator.load(folder)  # as readers will have it
        write_history(folder, arguments.runs)
        for name in KEPT:
            shutil.copy(PRETRAINED / name, folder)

        splits = ("validation", TEST)
        scores = {split: evaluate(translator, corpus[split]) for split in splits}
        write_json(folder / SCORES, scores)
        before = Translator.load(arguments.before or PRETRAINED)
        compared = {TEST: corpus[TEST]} | sample_captions()
        paired = {
            name: compare(before, translator, pairs) for name, pairs in compared.items()
        }
        write_json(folder / PAIRED, paired)
        (folder / CARD).write_text(model_card(folder), "utf-8")
    size = sum(path.stat().st_size for path in PRETRAINED.iterdir())
    print(f"{PRETRAINED.name}: {size / 1e6:.1f} MB")


def settings(model: Path, runs: list[Path]) -> dict[str, Any]:
    """What settings.json says beside the model: no folder of this machine."""
    saved = read_json(model / SETTINGS)
    del saved["model"]
    stages = [asdict(need_recipe(run).training) for run in runs]
    saved["recipe"]["start_from"] = None
    return {**saved, "stages": stages}


def need_recipe(run: Path) -> Recipe:
    """The recipe of a run."""
    recipe = read_settings(run).recipe
    if recipe is None:
        raise InputError(f"{run} is no folder of a run: its settings have no recipe")
    return recipe


def write_history(folder: Path, runs: list[Path]) -> None:
    """The histories of all runs as one, whose counts go on from run to run."""
    rows: list[dict[str, Any]] = []
    for stage, run in enumerate(runs, 1):
        first = rows[-1] if rows else {}
        for row in read_history(run):
            so_far = {key: first.get(key, 0) + row[key] for key in COUNTS}
            rows.append({"stage": stage, **row, **so_far})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / HISTORY).write_text(lines, "utf-8")


def compare(
    before: Translator, now: Translator, pairs: list[Pair]
) -> dict[str, dict[str, Any]]:
    """BLEU of two models with intervals, and p of a paired bootstrap (Koehn 2004)."""
    sources, references = zip(*pairs, strict=True)
    systems: list[tuple[str, Sequence[str]]] = []
    for name, translator in (("before", before), ("now", now)):
        search = partial(beam_search, beam_size=BEAM, alpha=translator.alpha)
        found = translator.translate(list(sources), search=search)
        systems.append((name, list(map(normalize, found))))
    references = tuple(map(normalize, references))
    test = PairedTest(
        systems, {"BLEU": BLEU()}, [references], test_type="bs", n_samples=RESAMPLES
    )
    columns: Any = test()[1]  # by name; in each, a row for each system
    return {
        name: {"bleu": result.score, "mean": result.mean, "interval": result.ci}
        | ({} if result.p_value is None else {"p": result.p_value})
        for name, result in zip(columns["System"], columns["BLEU"], strict=True)
    }


def model_card(folder: Path) -> str:
    """The card, from the files in the folder."""
    translator, history = Translator.load(folder), read_history(folder)
    stages = read_json(folder / SETTINGS)["stages"]
    scores, paired = read_json(folder / SCORES), read_json(folder / PAIRED)
    last, config = history[-1], translator.model.config
    return TEXT.format(
        **vars(config),
        parameters=parameter_count(config),
        alpha=translator.alpha,
        stages=len(stages),
        **{key: last[key] for key in ("epoch", "tokens", "cpu_minutes")},
        signature=scores[TEST]["greedy"]["signature"],
        beam=BEAM,
        resamples=RESAMPLES,
        recipe=RECIPE,
        tried=TRIED.read_text("utf-8"),
        scores=table("split|search|BLEU|chrF|BLEU, words", score_rows(scores)),
        paired=table(
            "text|before|now|p", [paired_row(*item) for item in paired.items()]
        ),
        training=table(
            "run|updates|tokens in each|peak rate|warm-up|objective|seed",
            [stage_row(*stage) for stage in enumerate(stages, 1)],
        ),
        curve=table(
            "run|updates|tokens, millions|minutes|BLEU", list(map(curve_row, history))
        ),
    )


def score_rows(scores: dict[str, dict[str, dict[str, Any]]]) -> list[tuple[Any, ...]]:
    """One row for each split and search."""
    return [
        (split, search, *(row[key] for key in ("bleu", "chrf", "word_bleu")))
        for split, searches in scores.items()
        for search, row in searches.items()
    ]


def curve_row(row: dict[str, Any]) -> tuple[Any, ...]:
    """One validation."""
    counts = row["stage"], f"{row['step']:,}", row["tokens"] / 1e6
    return *counts, row["cpu_minutes"], row["bleu"]


def paired_row(name: str, models: dict[str, dict[str, Any]]) -> tuple[Any, ...]:
    """One text: both scores with their intervals, and p."""
    said = (
        f"{model['bleu']:.2f} [{model['mean'] - model['interval']:.1f}, "
        f"{model['mean'] + model['interval']:.1f}]"
        for model in models.values()
    )
    return (name, *said, f"{models['now']['p']:.3f}")


def stage_row(number: int, training: dict[str, Any]) -> tuple[Any, ...]:
    """One run: its settings in the card's table."""
    risk = training.get("risk")
    return (
        number,
        f"{training['steps']:,}",
        f"{training['batch_tokens']:,}",
        f"{training['learning_rate']:g}",
        training["warmup"],
        f"smoothed loss, minimum risk ({risk:g})" if risk else "smoothed loss",
        training["seed"],
    )


def table(head: str, rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table; floats with two decimals."""
    lines = [head.split("|"), ["---"] * (head.count("|") + 1)]
    for row in rows:
        lines.append([f"{x:.2f}" if isinstance(x, float) else f"{x}" for x in row])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
