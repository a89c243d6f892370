"""Checkpoint files: written whole, and checked when read."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from custom.atomic_write import write_whole
from custom.errors import InputError


def write_checkpoint(path: Path, content: Any, *, before: Callable[[], None] | None = None) -> None:
    """Write a checkpoint so that after a kill or a power cut either the old or the new file is there.

    Args:
        path: the file; its folder is created if needed.
        content: what ``torch.save`` takes.
        before: called when the new file is complete on the disk and not yet in place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: torch.save(content, file), before=before)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, every byte of it checked.

    Raises:
        InputError: the file is cut off or damaged, or holds no dict.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not check the checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"wrong checksum of {damaged}")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise TypeError(type(content).__name__)
    except Exception as error:  # torch and zipfile raise many types of error for a damaged file
        raise InputError(path, "checkpoint", f"a damaged file ({error})"[:200], "a whole one") from error
    return content
