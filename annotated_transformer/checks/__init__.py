"""Checks that name the mistake, for students and for those who learn alone.

    from annotated_transformer.checks import check_attention

    print(check_attention(my_attention))

Each check takes your function and returns one line: "correct", "not done yet", or what
is wrong, and often why. Those of the graded problems have parts, for
`check_attention(my_attention, "mask")`, and a seed for other numbers.
`help(check_attention)` says what it asks for.
"""

# ruff: noqa: F401, F403
from annotated_transformer.checks.common import grade
from annotated_transformer.checks.exercises.chapter_00 import *
from annotated_transformer.checks.exercises.chapter_01 import *
from annotated_transformer.checks.exercises.chapter_02 import *
from annotated_transformer.checks.exercises.chapter_03 import *
from annotated_transformer.checks.exercises.chapter_04 import *
from annotated_transformer.checks.exercises.chapter_05 import *
from annotated_transformer.checks.exercises.chapter_06 import *
from annotated_transformer.checks.exercises.chapter_07 import *
from annotated_transformer.checks.exercises.chapter_08 import *
from annotated_transformer.checks.exercises.chapter_09 import *
from annotated_transformer.checks.exercises.chapter_10 import *
from annotated_transformer.checks.exercises.chapter_11 import *
from annotated_transformer.checks.exercises.chapter_12 import *
from annotated_transformer.checks.exercises.chapter_13 import *
from annotated_transformer.checks.exercises.chapter_14 import *
from annotated_transformer.checks.exercises.chapter_15 import *
from annotated_transformer.checks.exercises.chapter_16 import *
from annotated_transformer.checks.exercises.chapter_17 import *
from annotated_transformer.checks.exercises.chapter_18 import *
from annotated_transformer.checks.exercises.chapter_19 import *
from annotated_transformer.checks.exercises.chapter_20 import *
from annotated_transformer.checks.exercises.chapter_21 import *
from annotated_transformer.checks.exercises.chapter_22 import *
from annotated_transformer.checks.problems.attention import *
from annotated_transformer.checks.problems.bleu import *
from annotated_transformer.checks.problems.bpe import *
from annotated_transformer.checks.problems.decoding import *
from annotated_transformer.checks.problems.heads import *
from annotated_transformer.checks.problems.int8 import *
from annotated_transformer.checks.problems.leaks import *
from annotated_transformer.checks.problems.masked_words import *
from annotated_transformer.checks.problems.masks import *
from annotated_transformer.checks.problems.norm import *
from annotated_transformer.checks.problems.positions import *
from annotated_transformer.checks.problems.prepare import *
from annotated_transformer.checks.problems.rms import *
from annotated_transformer.checks.problems.saturation import *
from annotated_transformer.checks.problems.schedule import *
from annotated_transformer.checks.problems.shared import *
from annotated_transformer.checks.problems.smoothing import *
from annotated_transformer.checks.problems.sweep import *
from annotated_transformer.checks.problems.train_step import *
from annotated_transformer.checks.problems.trust_ratio import *
from annotated_transformer.checks.problems.validation import *

__all__ = sorted(["grade", *(name for name in dir() if name.startswith("check_"))])
