"""A small student of the model that ships: is a teacher worth more than references?

The teacher, the model that ships, translates the training captions once, greedily.
Students of equal sizes then make equally many updates of equal size, from

- the references, the captions' own translations, as the teacher did;
- its translations (Kim and Rush 2016, arXiv 1606.07947: sequence-level);
- its probabilities of each next token of the references (Hinton et al. 2015, arXiv
  1503.02531; Kim and Rush call it word-level).
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from annotated_transformer.batches import Batch, EncodedPair, collate, epochs
from annotated_transformer.config import TransformerConfig
from annotated_transformer.corpora import multi30k
from annotated_transformer.decoding import greedy_search
from annotated_transformer.files import read_json, write_json
from annotated_transformer.objectives import Objective
from annotated_transformer.runs import encode
from annotated_transformer.schedule import cosine
from annotated_transformer.scores import corpus_scores
from annotated_transformer.special import EOS, PAD
from annotated_transformer.studies import Study
from annotated_transformer.training import adam, set_rate, train_step, validate
from annotated_transformer.transformer import Transformer
from annotated_transformer.translator import Translator

STUDENT = TransformerConfig(
    vocab_size=4_000, d_model=96, d_ff=384, n_heads=3, n_layers=2, norm="pre", dropout=0
)
STEPS, TOKENS, PEAK, WARMUP = 750, 1_000, 4e-3, 75
LESSONS = ("references", "translations", "probabilities")
OUTPUTS = Path("runs/studies/teacher.json")  # made once


class Distilled(nn.Module):
    """The student's loss against a teacher's probabilities, summed over real labels.

    It is the cross entropy of two distributions at each position (temperature 1), and
    falls to the teacher's entropy, not to 0, where both agree.
    """

    def __init__(self, student: Transformer, teacher: Transformer):
        super().__init__()
        self.model = student
        self._teacher = [teacher.eval()]  # in a list: its weights are not learned here

    def forward(self, batch: Batch) -> Tensor:
        """The teacher reads what the student reads, without dropout."""
        real = batch.labels != PAD
        teacher = self._teacher[0]
        with torch.no_grad():
            told = teacher.logits(teacher.features(batch.src, batch.tgt_in)[real])
            wanted = told.softmax(-1)
        said = self.model.logits(self.model.features(batch.src, batch.tgt_in)[real])
        return -(wanted * said.log_softmax(-1)).sum()


@cache
def teacher() -> Translator:
    """The model that ships."""
    return Translator.pretrained()


@cache
def held_out() -> list[EncodedPair]:
    """The validation split."""
    return encode(multi30k()["validation"], teacher().tokenizer)


@cache
def pairs(lesson: str) -> list[EncodedPair]:
    """The training captions with the targets that a student sees."""
    tokenizer = teacher().tokenizer
    references = encode(multi30k()["train"], tokenizer)
    if lesson in ("references", "probabilities"):
        return references
    outputs = read_json(OUTPUTS)["ids"] if OUTPUTS.exists() else translations()
    return [
        (src, [*ids, EOS]) for (src, _), ids in zip(references, outputs, strict=True)
    ]


def translations() -> list[list[int]]:
    """The teacher's translations of the training captions, as ids; kept in a file."""
    sources = [source for source, _ in multi30k()["train"]]
    texts = teacher().translate(sources, search=greedy_search)
    ids = [teacher().tokenizer.encode_target(text)[:-1] for text in texts]
    write_json(OUTPUTS, {"ids": ids})
    return ids


def train_student(
    lesson: str,
    seed: int,
    *,
    steps: int = STEPS,
    train_pairs: Sequence[EncodedPair] | None = None,
    validate_every: int | None = None,
) -> tuple[Transformer, list[tuple[int, float]]]:
    """A student after `steps` updates, and its validation losses by step.

    The seed sets its first weights and the order of its batches.
    """
    torch.manual_seed(seed)
    model = Transformer(STUDENT)
    objective: nn.Module = Objective(model, smoothing=0.1)
    if lesson == "probabilities":
        objective = Distilled(model, teacher().model)
    optimizer, history = adam(model), []
    given = pairs(lesson) if train_pairs is None else train_pairs
    batches = epochs(given, TOKENS, seed)
    for step, (_, group) in zip(range(1, steps + 1), batches, strict=False):
        set_rate(optimizer, cosine(step, peak=PEAK, warmup=WARMUP, total=steps))
        batch = collate(group)
        objective.train()
        train_step(objective, optimizer, [batch], n_tokens=batch.n_tokens, clip=1.0)
        if validate_every and step % validate_every == 0:
            loss = validate(Objective(model, 0.0), held_out(), 4_000)
            history.append((step, loss))
    return model.eval(), history


def score(model: Transformer) -> float:
    """BLEU on the validation split, by greedy search."""
    captions = multi30k()["validation"]
    student = Translator(model, teacher().tokenizer)
    texts = student.translate([source for source, _ in captions], search=greedy_search)
    return corpus_scores(texts, [target for _, target in captions]).bleu


def measure(run: Mapping[str, Any]) -> dict[str, Any]:
    """Train one student, and score it."""
    model, history = train_student(
        run["lesson"], run["seed"], validate_every=STEPS // 7
    )
    return {
        "bleu": round(score(model), 2),
        "steps": [step for step, _ in history],
        "losses": [round(loss, 4) for _, loss in history],
    }


STUDY = Study(
    about="students of 0.9 M parameters learn Multi30k's captions in 750 updates, from "
    "references, or from the shipped model's translations or probabilities",
    runs=[{"lesson": lesson, "seed": seed} for seed in range(3) for lesson in LESSONS],
    measure=measure,
)
