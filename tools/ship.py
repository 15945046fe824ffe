"""Make the model that ships: weights in half precision, history, scores, model card.

annotated-transformer train --corpus multi30k --dropout 0.3 --steps 8000 --run runs/ship
annotated-transformer average runs/ship --output runs/ship-average
python tools/ship.py runs/ship runs/ship-average
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from annotated_transformer.checkpoints import WEIGHTS
from annotated_transformer.corpora import multi30k
from annotated_transformer.files import read_json, whole_or_nothing, write_json
from annotated_transformer.progress import HISTORY, read_history
from annotated_transformer.runs import evaluate
from annotated_transformer.transformer import parameter_count
from annotated_transformer.translator import PRETRAINED, SETTINGS, Translator

CARD, SCORES = "README.md", "scores.json"
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
| training | {steps:,} updates of {batch_tokens:,} tokens, {epochs} epochs, \
{tokens:,} target tokens; dropout {dropout}, label smoothing {smoothing}, seed {seed} |
| cost | {cpu_minutes:.0f} CPU-minutes on each of two cores; no GPU |
| file | half precision; computes in single precision |

## Scores

sacreBLEU, cased and detokenized. Everything was chosen on the validation split; the
test split was scored once.

{scores}

`BLEU, words` counts lowercased spaCy words, as in tutorials on sequence-to-sequence
models. Signature: `{signature}`

## Validation during training

Greedy, before averaging. Minutes are CPU time on each of two cores; tokens are target
tokens.

{curve}

## Make it again

```sh
{commands}
annotated-transformer evaluate --corpus multi30k
```

The last line scores the weights in this folder; on another kind of processor the last
digit may differ.

## Limits

It knows image captions: one sentence in the present tense about what is seen.
Questions, news, names and proverbs come out fluent but wrong. It repeats what its
captions assume about people, their sex and their origin. Do not use it where a mistake
costs something.

## License

Multi30k is distributed under the terms of Flickr30k, for non-commercial research and
education ([its maintainers' answer](https://github.com/multi30k/dataset/issues/8)). The
captions are not included. These weights were learned from them: use them under the same
terms. The code is under the MIT license.
"""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the training run")
    parser.add_argument("average", type=Path, help="folder of its average")
    parser.add_argument("--data-dir", type=Path, help="folder with Multi30k's files")
    arguments = parser.parse_args()

    with whole_or_nothing(PRETRAINED) as folder:
        translator = Translator.load(arguments.average)
        saved = read_json(arguments.average / SETTINGS)
        del saved["model"]
        translator.model.half()
        translator.save(folder, **saved)
        translator = Translator.load(folder)  # as readers will have it
        shutil.copy(arguments.run / HISTORY, folder)

        corpus = multi30k(arguments.data_dir)
        one = Translator.load(arguments.run)
        scores = {
            "validation, best checkpoint": evaluate(one, corpus["validation"]),
            "validation, average": evaluate(translator, corpus["validation"]),
            "test_2016_flickr": evaluate(translator, corpus["test_2016_flickr"]),
        }
        write_json(folder / SCORES, scores)
        card = model_card(translator, saved["recipe"]["training"], folder, scores)
        (folder / CARD).write_text(card, "utf-8")
    size = sum(path.stat().st_size for path in PRETRAINED.iterdir())
    print(f"{PRETRAINED.name}: {size / 1e6:.1f} MB, {WEIGHTS} among them")


def model_card(
    translator: Translator,
    training: dict[str, Any],
    folder: Path,
    scores: dict[str, dict[str, dict[str, Any]]],
) -> str:
    """The card, with the figures of the run."""
    config, history = translator.model.config, read_history(folder)
    rows = [
        (split, search, *(row[key] for key in ("bleu", "chrf", "word_bleu")))
        for split, searches in scores.items()
        for search, row in searches.items()
    ]
    return TEXT.format(
        **{**vars(config), **training},
        parameters=parameter_count(config),
        epochs=history[-1]["epoch"],
        tokens=history[-1]["tokens"],
        cpu_minutes=history[-1]["cpu_minutes"],
        signature=scores["test_2016_flickr"]["greedy"]["signature"],
        scores=table("split|search|BLEU|chrF|BLEU, words", rows),
        curve=table(
            "updates|tokens, millions|minutes|BLEU",
            [
                (row["step"], row["tokens"] / 1e6, row["cpu_minutes"], row["bleu"])
                for row in history
            ],
        ),
        commands="\n".join(__doc__.strip().splitlines()[2:]),
    )


def table(head: str, rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table; floats with two decimals."""
    lines = [head.split("|"), ["---"] * (head.count("|") + 1)]
    for row in rows:
        lines.append([f"{x:.2f}" if isinstance(x, float) else f"{x}" for x in row])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
