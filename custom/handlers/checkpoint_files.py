"""Checkpoint files: written whole, and told apart from half-written ones."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from custom.errors import InputError
from custom.files import write_whole


def write_checkpoint(path: Path, content: Any, *, before: Callable[[], None] | None = None) -> None:
    """Write a checkpoint so that after a kill or a power cut the old file is there or the new one.

    Args:
        path: the file; its folder is made if needed.
        content: what ``torch.save`` takes.
        before: called when the new file is whole on the disk and not yet in place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: torch.save(content, file), before=before)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, every byte of it checked.

    Raises:
        InputError: the file is cut off or damaged, or holds no dict.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch checks no sums
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"wrong sum of {damaged}")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise TypeError(type(content).__name__)
    except Exception as error:  # torch and zipfile raise half a dozen types for a damaged file
        raise InputError(path, "checkpoint", f"a damaged file ({error})"[:200], "a whole one") from error
    return content
