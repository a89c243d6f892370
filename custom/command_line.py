"""How the command lines end: what went wrong in one line, and nothing half-done left behind."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from custom.errors import InputError


class Terminated(KeyboardInterrupt):
    """SIGTERM, which comes to this process alone where Ctrl-C comes to those it has started too."""


@contextmanager
def told_in_one_line(*others: type[Exception]) -> Iterator[None]:
    """Run a command line inside; it ends with one line on standard error and a code.

    Bad input and files that cannot be read or written end with code 1, Ctrl-C with 130 and SIGTERM with 143, in every
    case after whatever was under way has tidied up.

    Args:
        others: further errors whose text is for the user.
    """
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except (InputError, OSError, *others) as error:
        sys.exit(f"error: {' '.join(str(error).splitlines())}")
    except KeyboardInterrupt as stop:
        print("stopped; the same command carries on from here", file=sys.stderr)
        sys.exit(128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT))
    finally:
        signal.signal(signal.SIGTERM, previous)


def leave_on_sigterm() -> None:
    """Let SIGTERM end a program of MONAI's by way of its ``finally`` clauses, with code 143.

    A program that has a way of its own keeps it.
    """
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _terminate(*_: object) -> None:
    raise Terminated
