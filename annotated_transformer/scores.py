"""Scores of translations (§6.1): BLEU, chrF, exact match, token accuracy.

All are percentages, from 0 to 100.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from jaxtyping import Int, Shaped
from torch import Tensor

from annotated_transformer.errors import InputError
from annotated_transformer.special import PAD
from annotated_transformer.text import normalize, unspaced_language
from annotated_transformer.tokenizers import has_rules, split_words


@dataclass(frozen=True)
class Scores:
    """Scores of a whole corpus, each from 0 to 100, and how they were computed.

    BLEU is cased; its tokenizer follows the references' script. chrF is chrF2.
    """

    bleu: float
    chrf: float
    exact_match: float
    signature: str


def corpus_scores(
    hypotheses: Sequence[str], references: Sequence[str], *, tokenize: str | None = None
) -> Scores:
    """Compare translations with one reference each (§6.1).

    `tokenize` names one of sacreBLEU's tokenizers; None chooses it by the references.
    """
    from sacrebleu.metrics import CHRF

    if len(hypotheses) != len(references):
        raise InputError(
            f"{len(hypotheses)} translations cannot be compared with {len(references)} "
            "references: each needs one"
        )
    if not hypotheses:
        raise InputError("there are no translations to score")
    ours, theirs = (list(map(normalize, texts)) for texts in (hypotheses, references))
    metrics = fitting_bleu(theirs, tokenize), CHRF()
    bleu, chrf = (metric.corpus_score(ours, [theirs]) for metric in metrics)
    hits = sum(a == b for a, b in zip(ours, theirs, strict=True))
    signature = (
        f"{score.name}|{metric.get_signature()}"
        for score, metric in zip((bleu, chrf), metrics, strict=True)
    )
    return Scores(
        bleu=bleu.score,
        chrf=chrf.score,
        exact_match=100 * hits / len(references),
        signature=" ".join(signature),
    )


def fitting_bleu(references: Sequence[str], tokenize: str | None = None) -> Any:
    """sacreBLEU's BLEU, with a tokenizer and n-grams that fit the references.

    Its n-grams have up to 4 words, the standard. Only if no reference is so long, they
    end with the longest, or else a perfect translation would score 0; then the
    signature says `order`.
    """
    from sacrebleu.metrics import BLEU

    tokenize = tokenize or script_tokenizer(references)
    if tokenize not in BLEU.TOKENIZERS:
        known = ", ".join(BLEU.TOKENIZERS)
        raise InputError(f"sacreBLEU has no tokenizer {tokenize!r}: choose {known}")
    try:
        metric = BLEU(tokenize=tokenize)
    except (ImportError, RuntimeError) as error:
        message = " ".join(str(error).split())
        raise InputError(f"tokenizer {tokenize!r}: {message}") from None
    if not any(text.count(" ") > 2 for text in references):  # most texts are longer
        totals = metric.corpus_score(references, [references]).totals
        order = sum(total > 0 for total in totals)
        if 0 < order < len(totals):
            metric = BLEU(tokenize=tokenize, max_ngram_order=order)
            metric.tokenizer_signature += f"|order:{order}"
    return metric


def script_tokenizer(references: Sequence[str]) -> str:
    """The name of sacreBLEU's tokenizer for the script of most references."""
    language = unspaced_language(references)
    if language is None:
        return "13a"
    if language == "ja" and find_spec("MeCab") and find_spec("ipadic"):
        return "ja-mecab"
    return "zh" if language == "zh" else "char"


def word_bleu(
    hypotheses: Sequence[str], references: Sequence[str], *, language: str = "en"
) -> float:
    """BLEU over lowercased spaCy words, as in well-known tutorials.

    Case is ignored, and hyphens and "n't" are split differently than by 13a: compare it
    only with scores that were computed the same way. Without spaces between words, each
    character counts as one; of a language without rules here, spaces tell words apart.
    """
    from torchtext.data.metrics import bleu_score

    if unspaced_language(references):
        language = "zh"
    elif not has_rules(language):
        language = "xx"
    words, reference_words = (
        [[word.lower() for word in split_words(text, language)] for text in texts]
        for texts in (hypotheses, references)
    )
    order = min(4, max(map(len, reference_words), default=0) or 4)
    return 100 * bleu_score(
        words,
        [[reference] for reference in reference_words],
        max_n=order,
        weights=[1 / order] * order,
    )


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
