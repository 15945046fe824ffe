"""Learning-rate schedules (§5.3): warmup, then decay."""

import math


def inverse_square_root(step: int, *, d_model: int, warmup: int = 4_000) -> float:
    """The learning rate at a step, counted from 1 (§5.3, Eq. 3).

    Rises linearly for `warmup` steps, then falls as one over the root of the step.
    """
    step = max(step, 1)  # step 0 would divide by zero
    return d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)


def cosine(step: int, *, peak: float, warmup: int, total: int) -> float:
    """Departs from §5.3: rise to `peak` in `warmup` steps, then a cosine to zero.

    For short runs whose length is known in advance.
    """
    if step < warmup:
        return peak * step / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * (1 + math.cos(math.pi * progress)) / 2
