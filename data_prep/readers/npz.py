"""Reader of the file layout of the CVPR 2024 challenge "Segment Anything in Medical Images on Laptop".

Files ``{2D|3D}_{Modality}_*.npz``, also in sub-folders, each with ``imgs`` (2D: HxW or HxWx3; 3D: DxHxW), ``gts`` (HxW
or DxHxW integers) and, for 3D, optionally ``spacing``. Assumption: ``spacing`` is in SimpleITK's order (x, y, z), as
in the files of the challenge.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from custom.errors import InputError
from custom.images.arrays import read_npz_arrays
from custom.images.decoding import as_label, check_size
from custom.modalities import canonical_modality
from data_prep.readers.base import Case, Reader, Source, safe_name

_FILE_NAME = re.compile(r"(2D|3D)_([^_]+)(?:_([^_]+))?(?:_.*)?$")
#: Modalities whose ``gts`` number single objects, so that touching ones must not be taken apart or joined.
_INSTANCE_MODALITIES = ("Microscopy",)


class NpzReader(Reader):
    """Read challenge ``.npz`` files; every mask is named "object", since the files hold no names.

    Args:
        src: folder with the files.

    Raises:
        InputError: the folder is missing.
    """

    def __init__(self, src: str | Path) -> None:
        self.src = Path(src)
        if not self.src.is_dir():
            raise InputError(src, "src", "no such folder", "a folder with {2D|3D}_{Modality}_*.npz files")
        self.name = self.src.resolve().name

    def sources(self) -> list[Source]:
        """List the ``.npz`` files in alphabetical order."""
        paths = sorted(self.src.rglob("*.npz"))
        if not paths:
            raise InputError(self.src, "src", "no .npz file", "a folder with {2D|3D}_{Modality}_*.npz files")
        return [Source(safe_name(path.stem), {"path": str(path)}, (str(path),)) for path in paths]

    def load(self, source: Source) -> Case:
        """Load one file."""
        path = source.entry["path"]
        parts = _FILE_NAME.match(Path(path).stem)
        if parts is None:
            raise InputError(path, "file name", Path(path).name, "{2D|3D}_{Modality}_*.npz")
        modality = canonical_modality(parts[2], path)
        dimension = int(parts[1][0])
        arrays = _read(path)
        image, label = arrays["imgs"], as_label(arrays["gts"], path)
        if image.ndim not in ((2, 3) if dimension == 2 else (3,)):
            raise InputError(path, "imgs", f"shape {image.shape}", "2D: HxW or HxWx3; 3D: DxHxW")
        if dimension == 2:
            image, label = image[None], label[None]  # HxW[x3] -> 1xHxW[x3]
        check_size(image.shape[:3], path)
        return Case(
            name=source.name,
            modality=modality,
            dataset=parts[3] or self.name,
            split=None,
            image=image,
            label=label,
            names={"*": "object"},
            spacing=_spacing(arrays.get("spacing"), path) if dimension == 3 else None,
            instance=modality in _INSTANCE_MODALITIES,
            dimension=dimension,
            image_file=path,
            label_file=path,
        )


def _read(path: str) -> dict[str, np.ndarray]:
    arrays = read_npz_arrays(path, ("imgs", "gts", "spacing"))
    for key in ("imgs", "gts"):
        if key not in arrays:
            raise InputError(path, key, f"only {', '.join(arrays) or 'nothing'}", "arrays imgs and gts")
    return arrays


def _spacing(spacing: Any, path: str) -> tuple[float, float, float] | None:
    if spacing is None:
        return None
    if spacing.shape != (3,) or spacing.dtype.kind not in "iuf" or not (0 < spacing).all() or np.isinf(spacing).any():
        raise InputError(path, "spacing", spacing.tolist(), "three positive numbers (x, y, z) in mm")
    x, y, z = (float(s) for s in spacing)
    return z, y, x
