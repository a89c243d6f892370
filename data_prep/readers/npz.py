"""Reader of the file layout of the CVPR 2024 challenge "Segment Anything in Medical Images on Laptop".

Files ``{2D|3D}_{Modality}_*.npz``, also in sub-folders, each with ``imgs`` (2D: HxW or HxWx3; 3D: DxHxW), ``gts`` (HxW
or DxHxW integers) and, for 3D, optionally ``spacing``. Assumption: ``spacing`` is in SimpleITK's order (x, y, z), as
in the files of the challenge.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from custom.errors import InputError
from custom.images.arrays import read_npz_arrays
from custom.images.decoding import as_label
from custom.images.formats import npz
from custom.modalities import canonical_modality
from data_prep.readers.base import Case, Reader, Source, safe_name

_FILE_NAME = re.compile(r"(2D|3D)_([^_]+)(?:_([^_]+))?(?:_.*)?$")
#: Modalities whose ``gts`` number single objects, so that touching objects must not be split or joined.
_INSTANCE_MODALITIES = ("Microscopy",)


class NpzReader(Reader):
    """Read challenge ``.npz`` files; every mask is named "object", since the files hold no names.

    Args:
        src: folder with the files.

    Raises:
        InputError: the folder is missing.
    """

    def __init__(self, src: str | Path) -> None:
        self.use_folder(src, "a folder with {2D|3D}_{Modality}_*.npz files")

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
        image, arrays = npz.read(path), read_npz_arrays(path, ("gts",))
        if "gts" not in arrays:
            raise InputError(path, "gts", "no such array", "arrays imgs and gts")
        label = as_label(arrays["gts"], path)
        if parts[1] == "2D":
            label = label[None]  # HxW -> 1xHxW
            if image.kind == "volume":  # its last axis is not slices but channels, perhaps with alpha
                image = replace(image, array=image.array[None], kind="picture", spacing=None)
        elif image.kind == "picture":
            raise InputError(path, "imgs", f"shape {image.array.shape[1:]}", "2D: HxW or HxWx3; 3D: DxHxW")
        return Case(
            name=source.name,
            modality=modality,
            dataset=parts[3] or self.name,
            image=image,
            label=label,
            label_file=path,
            names={"*": "object"},
            instance=modality in _INSTANCE_MODALITIES,
        )
