"""Checks that name the mistake, for students and for those who learn alone.

    from annotated_transformer.checks import check_attention

    print(check_attention(my_attention))

Each check takes your function and returns one line: "correct", "not done yet", or what
is wrong, and often why. Most have parts, for `check_attention(my_attention, "mask")`,
and a seed for other numbers. `help(check_attention)` says what it asks for.
"""

from annotated_transformer.checks.chapter_00 import (
    check_guess,
    check_senses,
    check_swap,
)
from annotated_transformer.checks.chapter_01 import check_equal, check_hub, check_layers
from annotated_transformer.checks.chapter_02 import (
    check_pieces,
    check_softmax,
    check_softmax_backward,
)
from annotated_transformer.checks.chapter_03 import (
    check_detector,
    check_from_torch,
    check_offset,
    check_packed,
)
from annotated_transformer.checks.chapter_04 import (
    check_einsum,
    check_grouped,
    check_job,
    check_split_test,
)
from annotated_transformer.checks.chapter_05 import (
    check_feed_forward,
    check_gated,
    check_gradient,
    check_tie,
)
from annotated_transformer.checks.chapter_06 import (
    check_halves,
    check_move,
    check_places,
)
from annotated_transformer.checks.chapter_07 import (
    check_block,
    check_norm_backward,
    check_rms_norm,
)
from annotated_transformer.checks.chapter_08 import (
    check_count,
    check_decoder,
    check_language_model,
)
from annotated_transformer.checks.chapter_09 import (
    check_accumulate,
    check_patience,
    check_shift,
)
from annotated_transformer.checks.chapter_10 import check_adam, check_loop, check_warmup
from annotated_transformer.checks.chapter_11 import (
    check_dropout,
    check_perplexity,
    check_unigram,
)
from annotated_transformer.checks.chapter_12 import (
    check_reverse,
    check_sort,
    check_unordered,
)
from annotated_transformer.checks.chapter_13 import (
    check_bytes,
    check_pairs,
    check_shorten,
    check_unknown,
)
from annotated_transformer.checks.chapter_14 import (
    check_batches,
    check_split,
    check_wilson,
)
from annotated_transformer.checks.chapter_15 import check_step, check_table, check_vote
from annotated_transformer.checks.chapter_16 import (
    check_corpus_bleu,
    check_f1,
    check_paired,
)
from annotated_transformer.checks.chapter_17 import (
    check_gates,
    check_rollout,
    check_share,
)
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
    "check_accumulate",
    "check_adam",
    "check_attention",
    "check_batches",
    "check_beam",
    "check_best_rate",
    "check_bleu",
    "check_block",
    "check_bytes",
    "check_causal_mask",
    "check_corpus_bleu",
    "check_count",
    "check_decoder",
    "check_decoder_mask",
    "check_detector",
    "check_dropout",
    "check_einsum",
    "check_equal",
    "check_f1",
    "check_feed_forward",
    "check_from_torch",
    "check_gated",
    "check_gates",
    "check_gradient",
    "check_greedy",
    "check_grouped",
    "check_guess",
    "check_halves",
    "check_hub",
    "check_job",
    "check_language_model",
    "check_layer_norm",
    "check_layers",
    "check_loop",
    "check_merge_heads",
    "check_merges",
    "check_move",
    "check_norm_backward",
    "check_offset",
    "check_packed",
    "check_padding_mask",
    "check_paired",
    "check_pairs",
    "check_patience",
    "check_perplexity",
    "check_pieces",
    "check_places",
    "check_prepare",
    "check_rate",
    "check_reverse",
    "check_rms_norm",
    "check_rollout",
    "check_saturation",
    "check_sees_hidden",
    "check_segment",
    "check_senses",
    "check_share",
    "check_shift",
    "check_shorten",
    "check_sinusoids",
    "check_smoothed_loss",
    "check_smoothed_targets",
    "check_softmax",
    "check_softmax_backward",
    "check_sort",
    "check_split",
    "check_split_heads",
    "check_split_test",
    "check_step",
    "check_swap",
    "check_sweep",
    "check_table",
    "check_tie",
    "check_train_step",
    "check_unigram",
    "check_unknown",
    "check_unordered",
    "check_validation",
    "check_vote",
    "check_warmup",
    "check_wilson",
    "grade",
]
