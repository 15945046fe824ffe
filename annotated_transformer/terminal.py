"""The terminal: UTF-8, Ctrl-C, and one line for whatever stops a command."""

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from annotated_transformer.errors import InputError


class Stopped(SystemExit):
    """Ctrl-C was pressed: the command ends with exit code 130 and this message."""

    def __init__(self, message: str = "stopped"):
        super().__init__(128 + signal.SIGINT)
        self.message = message


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Run a command; bad input ends it with exit code 2, Ctrl-C with 130, in one line.

    Output is UTF-8 whatever the environment says; what is no Unicode, as in the name of
    a file, is escaped.
    """
    use_utf8()
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not if Ctrl-C is ignored, as by nohup
        signal.signal(signal.SIGINT, stop)
    try:
        with flushed():
            yield
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        raise SystemExit(1) from None
    except (InputError, OSError) as error:
        print(f"Error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        raise SystemExit(2) from None
    except Stopped as stopped:
        if os.environ.get("RANK", "0") == "0":  # the first of several speaks
            print(stopped.message, file=sys.stderr)
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is stop:
            signal.signal(signal.SIGINT, before)


def use_utf8() -> None:
    """Write UTF-8, and open closed streams, so that no file takes their numbers."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def stop(number: int, frame: Any) -> None:
    """End the command; a second Ctrl-C must not disturb its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise Stopped


@contextmanager
def flushed() -> Iterator[None]:
    """Write out what was printed, so that a full disk or a closed pipe shows here."""
    try:
        try:
            yield
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except OSError:
        # What could not be written would be tried again, and fail, at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise
