"""Write files whole or not at all, whether the process is killed or the power fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None


def write_whole(
    path: Path, write: Callable[[BinaryIO], Any], *, before: Callable[[], None] | None = None, durable: bool = True
) -> int:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place; return its size in bytes.

    A reader sees the old file or the new one. After an error the old file stays and the temporary file is removed. A
    temporary file that a killed process left behind is removed when the next process first writes into the folder.

    Args:
        path: the file.
        write: fills an open binary file.
        before: called when the new file is complete and not yet in place.
        durable: flush the content to the disk before the file gets its name, so that it is also whole after a power
            cut. Not needed for a file whose loss would be noticed.

    Raises:
        OSError: the file cannot be written.
    """
    _tidy_once(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _claimed(partial, "ab"):
            with partial.open("wb") as file:
                write(file)
                size = file.tell()
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            if before is not None:
                before()
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)
    return size


def remove_left_over(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder; running processes hold a lock on theirs."""
    for partial in folder.glob(".*.partial"):
        with suppress(OSError), _claimed(partial, "rb+", surely=True):
            partial.unlink()


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk: flushing a file does not flush its name."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some network file systems cannot
            os.fsync(opened)
    finally:
        os.close(opened)


_tidy_once = cache(remove_left_over)


@contextmanager
def _claimed(partial: Path, mode: str, *, surely: bool = False) -> Iterator[None]:
    """Hold the lock on a temporary file; raise an OSError if ``surely`` is set and the lock is taken."""
    if fcntl is None:
        yield
        return
    with partial.open(mode) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # locked by another process, or a network file system without locks
            if surely:
                raise
        yield


def is_inside(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Return whether a path lies in a folder. Only the text counts: links are not followed, so a folder may be one."""
    place, root = os.path.abspath(path), os.path.abspath(folder)
    return os.path.commonpath([place, root]) == root


def files_below(folder: str | os.PathLike[str]) -> list[str]:
    """List the files below a folder, at any depth, sorted; folders that cannot be read are skipped."""
    found = (str(Path(place, name)) for place, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if os.path.isfile(path))
