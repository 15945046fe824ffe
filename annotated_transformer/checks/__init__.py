"""Checks that name the mistake, for students and for those who learn alone.

    from annotated_transformer.checks import check_attention

    print(check_attention(my_attention))

Each check takes your function and returns one line: "correct", "not done yet", or what
is wrong, and often why. Most have parts, for `check_attention(my_attention, "mask")`,
and a seed for other numbers. `help(check_attention)` says what it asks for.
"""

from annotated_transformer.checks.common import grade
from annotated_transformer.checks.model import (
    check_attention,
    check_causal_mask,
    check_decoder_mask,
    check_layer_norm,
    check_merge_heads,
    check_padding_mask,
    check_saturation,
    check_sees_hidden,
    check_sinusoids,
    check_split_heads,
)
from annotated_transformer.checks.training import (
    check_best_rate,
    check_rate,
    check_smoothed_loss,
    check_smoothed_targets,
    check_sweep,
    check_train_step,
    check_validation,
)
from annotated_transformer.checks.translation import (
    check_beam,
    check_bleu,
    check_greedy,
    check_merges,
    check_prepare,
    check_segment,
)

__all__ = [
    "check_attention",
    "check_beam",
    "check_best_rate",
    "check_bleu",
    "check_causal_mask",
    "check_decoder_mask",
    "check_greedy",
    "check_layer_norm",
    "check_merge_heads",
    "check_merges",
    "check_padding_mask",
    "check_prepare",
    "check_rate",
    "check_saturation",
    "check_sees_hidden",
    "check_segment",
    "check_sinusoids",
    "check_smoothed_loss",
    "check_smoothed_targets",
    "check_split_heads",
    "check_sweep",
    "check_train_step",
    "check_validation",
    "grade",
]
