"""Read JSON files that users or other programs wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from custom.errors import InputError
from custom.limits import JSON_BYTES


def read_json(
    path: str | PathLike[str], allowed: str, *, field: str = "file", constant: Callable[[str], Any] | None = None
) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        allowed: what it should hold, for the error.
        field: the part of ``path`` to name in the error.
        constant: converts NaN and Infinity, which are not JSON; by default they become floats.

    Raises:
        InputError: no such file, invalid JSON, or larger than ``custom.limits`` allows.
    """
    try:
        JSON_BYTES.check(Path(path).stat().st_size, path, field)
        content = Path(path).read_bytes()
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: not a possible path
        found = "no such file" if isinstance(error, FileNotFoundError) else error
        raise InputError(path, field, found, allowed) from error
    return parse_json(content, path, allowed, field=field, constant=constant)


def parse_json(
    content: str | bytes,
    source: str | PathLike[str],
    allowed: str,
    *,
    field: str = "file",
    constant: Callable[[str], Any] | None = None,
) -> Any:
    """Parse JSON that came from ``source``; arguments and errors as in ``read_json``."""
    try:
        return json.loads(content, parse_constant=constant)
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deep
        raise InputError(source, field, f"invalid JSON ({error})", allowed) from error
