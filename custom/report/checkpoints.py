"""Checkpoints as the command lines of the reports name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from custom.errors import InputError
from custom.lite_medsam import checkpoint_path


def named_checkpoints(texts: Sequence[object]) -> dict[str, Path]:
    """Return name -> absolute path of checkpoints given as ``FILE`` or ``NAME=FILE``.

    FILE alone has its own name; "lite_medsam" stands for LiteMedSAM's file.

    Raises:
        InputError: there is none, no such file, or two of one name.
    """
    named: dict[str, Path] = {}
    for text in map(str, texts):
        before, equals, after = text.rpartition("=")
        path = checkpoint_path(after).absolute()
        name = before if equals else path.stem
        if name in named or not name or "/" in name:
            raise InputError("arguments", "checkpoint", text, "a name for each that differs: NAME=FILE")
        named[name] = path
    if not named:
        raise InputError("arguments", "checkpoints", "none", "one at least")
    return named
