"""The one error type that means: the input was wrong, not the program."""


class InputError(ValueError):
    """Bad input. The message says in one line what is wrong and what to do."""
