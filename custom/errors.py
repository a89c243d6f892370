"""The one error for bad input: it names the source, the field, what was found and what is allowed."""

from __future__ import annotations

import errno
import sys
from os import PathLike
from types import TracebackType


class InputError(ValueError):
    """Input that cannot be used, reported in one line.

    Args:
        source: the file, folder or argument the value came from.
        field: the part of the source that is wrong, e.g. ``"boxes[2]"`` or ``"modality"``.
        found: the value that was found.
        allowed: the values that are allowed.

    Example:
        >>> str(InputError("2D_US_7.npz", "boxes[0]", [9, 4, 3, 8], "x_min < x_max"))
        '2D_US_7.npz: boxes[0]: found [9, 4, 3, 8]; allowed: x_min < x_max'
    """

    def __init__(self, source: str | PathLike[str], field: str, found: object, allowed: str) -> None:
        self.source, self.field, self.found, self.allowed = str(source), field, found, allowed
        super().__init__(source, field, found, allowed)

    def __str__(self) -> str:
        found = str(self.found)
        if len(found) > _LONGEST:  # the value may be a whole file
            found = f"{found[:_LONGEST]}... ({len(found)} characters)"
        text = f"{self.source}: {self.field}: found {found}; allowed: {self.allowed}"
        return " ".join(text.splitlines())  # arrays and messages of other libraries contain line breaks


def report_input_errors() -> None:
    """Make a program that stops on an ``InputError`` print its one line, even if it was wrapped in another error.

    MONAI wraps errors in the names of the config items it was building; a user wants to know which file is wrong. A
    file that cannot be read or written is reported in the same way: torch raises its own error when the disk is full.
    """
    previous = sys.excepthook
    if getattr(previous, "reports_input_errors", False):
        return

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        line = _error_line(error)
        if line is None:
            previous(kind, error, traceback)
        else:
            print(f"error: {line}", file=sys.stderr)

    hook.reports_input_errors = True
    sys.excepthook = hook


def _error_line(error: BaseException | None) -> str | None:
    """Return the line of the ``InputError`` or ``OSError`` behind an error, or None where there is none."""
    failed, caused = None, True
    while error is not None:
        if isinstance(error, InputError):
            return str(error)
        for line in str(error).splitlines():  # an error of a data worker arrives as the text of its traceback
            if line.startswith(_RAISED):
                return line.removeprefix(_RAISED)
        # An OSError that was only being handled must not hide a bug, unless it is about storage.
        if isinstance(error, OSError) and (caused or error.errno in _STORAGE):
            failed = failed or " ".join(str(error).splitlines())
        caused = caused and error.__cause__ is not None
        error = error.__cause__ or error.__context__
    return failed


_STORAGE = (errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EIO)
_RAISED = f"{InputError.__module__}.{InputError.__qualname__}: "
_LONGEST = 2000
