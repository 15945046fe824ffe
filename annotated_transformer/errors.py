"""What a user is told: bad input, and warnings."""

import sys


class InputError(ValueError):
    """Bad input. The message says in one line what is wrong and what to do."""


def warn(message: str) -> None:
    """Say on stderr, in one line, what a user would want to know."""
    print(f"Warning: {message}", file=sys.stderr)
