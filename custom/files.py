"""Write files whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> int:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place; return its size in bytes.

    A reader sees the old file or the new one; after an error the old one stays and the temporary file is gone.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
            size = file.tell()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return size


def is_inside(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Tell whether a path leads into a folder, by its text: links are not followed, so that a folder may be one."""
    place, root = os.path.abspath(path), os.path.abspath(folder)
    return os.path.commonpath([place, root]) == root


def files_below(folder: str | os.PathLike[str]) -> list[str]:
    """List the files below a folder, at any depth, sorted; what cannot be looked into is passed over."""
    found = (str(Path(place, name)) for place, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if os.path.isfile(path))
