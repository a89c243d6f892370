"""CVPR24 "MedSAM on laptop" files: ``{2D|3D}_{Modality}_*.npz`` with imgs and boxes in, ``segs`` out."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from pathlib import Path

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import Dataset
from monai.engines import PrepareBatch
from monai.transforms import MapTransform

from custom.errors import InputError
from custom.files import write_whole
from custom.inference.segmenter import as_uint8
from custom.modalities import canonical_modality
from custom.transforms import check_boxes


def npz_modality(path: str | os.PathLike[str]) -> str | None:
    """Return the modality a file's name tells, e.g. "CT" of ``3D_CT_liver_01.npz``; None where it tells none."""
    parts = Path(path).stem.split("_")
    return canonical_modality(parts[1], str(path)) if parts[0] in ("2D", "3D") and len(parts) > 1 else None


def read_npz_case(path: str | os.PathLike[str]) -> dict[str, object]:
    """Read one case: "image" (HxW, HxWx3 or DxHxW uint8 tensor), "boxes" (Nx4 or Nx6), "modality" and "case".

    The modality is "" where the file's name tells none, since None cannot be collated.

    Raises:
        InputError: not a readable npz, a missing or malformed array, an unknown modality, or a wrong box.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {key: content[key] for key in ("imgs", "boxes") if key in content.files}
    except Exception as error:  # zipfile, zlib and numpy have errors of their own, a plain .npy brings yet another
        raise InputError(path, "file", f"{type(error).__name__}: {error}", "an npz of plain arrays") from None
    for key in ("imgs", "boxes"):
        if key not in arrays:
            raise InputError(path, key, "no such array", "imgs (HxW, HxWx3 or DxHxW) and boxes (Nx4 or Nx6)")
    image, boxes = as_uint8(arrays["imgs"], str(path)), np.atleast_2d(arrays["boxes"])
    volume = boxes.shape[-1] == 6
    if image.ndim != 3 if volume else not (image.ndim == 2 or image.ndim == 3 and image.shape[2] == 3):
        allowed = "DxHxW with boxes Nx6" if volume else "HxW or HxWx3 with boxes Nx4"
        raise InputError(path, "imgs", f"shape {image.shape}", allowed)
    return {
        "image": torch.from_numpy(image),
        "boxes": torch.from_numpy(check_boxes(boxes, image.shape if volume else image.shape[:2], path)),
        "modality": npz_modality(path) or "",
        "case": Path(path).stem,
    }


class NpzDataset(Dataset):
    """The cases of a folder of npz files, in the order of their names, read one at a time.

    Raises:
        InputError: no such folder, or no npz file in it.
    """

    def __init__(self, dataset_dir: str | os.PathLike[str]) -> None:
        files = sorted(Path(dataset_dir).glob("*.npz"))
        if not files:
            raise InputError(dataset_dir, "dataset_dir", "no npz file", "a folder of {2D|3D}_{Modality}_*.npz files")
        super().__init__(files, transform=read_npz_case)


class SaveSegsd(MapTransform):
    """Write a label map as ``<case>.npz`` with ``segs``, whole or not at all.

    Args:
        keys: label map, the image's size.
        output_dir: folder, made if missing.
    """

    def __init__(self, keys: KeysCollection, *, output_dir: str | os.PathLike[str]) -> None:
        super().__init__(keys)
        self.output_dir = Path(output_dir)

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        """Write the file."""
        item = dict(data)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        for key in self.key_iterator(item):
            labels = np.asarray(item[key].cpu())
            labels = labels.astype(np.uint8 if labels.max() <= 255 else np.uint16)
            write_whole(
                self.output_dir / f"{item['case']}.npz",
                lambda file, labels=labels: np.savez_compressed(file, segs=labels),
            )
        return item


class PrepareCase(PrepareBatch):
    """Give MONAI's evaluator a case as ``BoxSegmenter`` wants it; that one moves to the device what it needs there."""

    def __call__(
        self, batchdata: Mapping[str, object], device: object = None, non_blocking: bool = False, **_: object
    ) -> tuple[torch.Tensor, None, tuple, dict[str, object]]:
        """Return (image, no target, (), boxes and modality)."""
        return batchdata["image"], None, (), {"boxes": batchdata["boxes"], "modality": batchdata["modality"]}
