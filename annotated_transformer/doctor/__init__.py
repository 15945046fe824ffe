"""Examine your own Transformer, and name what is wrong with it.

    from annotated_transformer.doctor import examine

    report = examine(model, vocab_size=8_000)  # any callable (src, tgt_in) -> logits
    print(report)

`annotated-transformer doctor my_model.py:build` does the same in a terminal.
"""

from annotated_transformer.doctor.examination import examine
from annotated_transformer.doctor.patient import Cache, Patient
from annotated_transformer.doctor.report import Report, Result

__all__ = ["Cache", "Patient", "Report", "Result", "examine"]
