"""The one error for bad input: it names the source, the field, what was found and what is allowed."""

from __future__ import annotations

import errno
import sys
from os import PathLike
from types import TracebackType


class InputError(ValueError):
    """Input that cannot be used, told in one line.

    Args:
        source: the file, folder or argument the value came from.
        field: the part of the source that is wrong, e.g. ``"boxes[2]"`` or ``"modality"``.
        found: what stands there.
        allowed: what may stand there.

    Example:
        >>> str(InputError("2D_US_7.npz", "boxes[0]", [9, 4, 3, 8], "x_min < x_max"))
        '2D_US_7.npz: boxes[0]: found [9, 4, 3, 8]; allowed: x_min < x_max'
    """

    def __init__(self, source: str | PathLike[str], field: str, found: object, allowed: str) -> None:
        self.source, self.field, self.found, self.allowed = str(source), field, found, allowed
        super().__init__(source, field, found, allowed)

    def __str__(self) -> str:
        found = str(self.found)
        if len(found) > _LONGEST:  # it may be a whole file
            found = f"{found[:_LONGEST]}... ({len(found)} characters)"
        text = f"{self.source}: {self.field}: found {found}; allowed: {self.allowed}"
        return " ".join(text.splitlines())  # arrays and other people's messages come with line breaks


def report_input_errors() -> None:
    """Make a program that stops on an ``InputError`` print that one line, whatever was raised around it.

    MONAI wraps errors in the names of the config items it was building; a user wants to know which file is wrong. A
    file that cannot be read or written is told alike: torch raises something of its own when the disk is full.
    """
    previous = sys.excepthook
    if getattr(previous, "reports_input_errors", False):
        return

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        told = _told(error)
        if told is None:
            previous(kind, error, traceback)
        else:
            print(f"error: {told}", file=sys.stderr)

    hook.reports_input_errors = True
    sys.excepthook = hook


def _told(error: BaseException | None) -> str | None:
    """Return the line of the ``InputError`` or ``OSError`` behind an error, or None where there is none."""
    failed, caused = None, True
    while error is not None:
        if isinstance(error, InputError):
            return str(error)
        for line in str(error).splitlines():  # a data worker's error arrives as the text of its traceback
            if line.startswith(_RAISED):
                return line.removeprefix(_RAISED)
        # One that was only being handled is not to hide a mistake of the program, unless it says enough.
        if isinstance(error, OSError) and (caused or error.errno in _STORAGE):
            failed = failed or " ".join(str(error).splitlines())
        caused = caused and error.__cause__ is not None
        error = error.__cause__ or error.__context__
    return failed


_STORAGE = (errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EIO)
_RAISED = f"{InputError.__module__}.{InputError.__qualname__}: "
_LONGEST = 2000
