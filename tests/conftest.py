"""Set-up for all tests: shapes are checked, and sums are added in one order."""

import os

# Kernels started by nbval inherit it, and match what `make notebooks` stored.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)

# Every call of the package now checks its arguments against its signature; an int will
# do for a float. This must come before the first import of the package, hence here.
install_import_hook(
    "annotated_transformer",
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)
