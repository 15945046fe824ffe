"""Scores of translations (§6.1): BLEU, chrF, exact match, token accuracy.

All are percentages, from 0 to 100.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int, Shaped
from torch import Tensor

from annotated_transformer.errors import InputError
from annotated_transformer.special import PAD
from annotated_transformer.tokenizers import split_words


@dataclass(frozen=True)
class Scores:
    """Scores of a whole corpus, each from 0 to 100, and how they were computed.

    BLEU is cased and uses sacreBLEU's 13a tokens; chrF is chrF2.
    """

    bleu: float
    chrf: float
    exact_match: float
    signature: str


def corpus_scores(hypotheses: Sequence[str], references: Sequence[str]) -> Scores:
    """Compare translations with one reference each (§6.1)."""
    from sacrebleu.metrics import BLEU, CHRF

    if len(hypotheses) != len(references):
        raise InputError(
            f"{len(hypotheses)} translations cannot be compared with {len(references)} "
            "references: each needs one"
        )
    if not hypotheses:
        raise InputError("there are no translations to score")
    metrics = BLEU(), CHRF()
    bleu, chrf = (metric.corpus_score(hypotheses, [references]) for metric in metrics)
    hits = sum(
        ours == theirs for ours, theirs in zip(hypotheses, references, strict=True)
    )
    return Scores(
        bleu=bleu.score,
        chrf=chrf.score,
        exact_match=100 * hits / len(references),
        signature=" ".join(
            f"{score.name}|{metric.get_signature()}"
            for score, metric in zip((bleu, chrf), metrics, strict=True)
        ),
    )


def word_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """BLEU over lowercased spaCy words, as in well-known tutorials.

    Case is ignored, and hyphens and "n't" are split differently than by 13a: compare it
    only with scores that were computed the same way.
    """
    from torchtext.data.metrics import bleu_score

    words, reference_words = (
        [[word.lower() for word in split_words(text, "en")] for text in texts]
        for texts in (hypotheses, references)
    )
    return 100 * bleu_score(words, [[reference] for reference in reference_words])


def token_accuracy(
    outputs: Shaped[Tensor, "*outputs"], labels: Int[Tensor, "*batch tgt"]
) -> float:
    """The percentage of labels that are predicted exactly; padding does not count.

    `outputs` are predicted ids, shaped like `labels`, or logits with one more axis.
    """
    predictions = outputs.argmax(-1) if outputs.is_floating_point() else outputs
    if predictions.shape != labels.shape:
        raise InputError(
            f"predictions of shape {tuple(predictions.shape)} do not fit "
            f"labels of shape {tuple(labels.shape)}"
        )
    real = labels != PAD
    if not real.any():
        raise InputError("all labels are padding: there is nothing to count")
    return 100 * (predictions[real] == labels[real]).float().mean().item()
