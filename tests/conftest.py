"""Set-up for all tests: shapes are checked, and sums are added in one order."""

import os

# Kernels started by nbval inherit it, and match what `make notebooks` stored.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)

# Every call of a module with tensors now checks its arguments, shapes too, against its
# signature; an int will do for a float. This must come before their first import.
WITH_SHAPES = "attention batches copy_task decoding layers loss masks".split()
install_import_hook(
    [f"annotated_transformer.{name}" for name in [*WITH_SHAPES, "transformer"]],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)
