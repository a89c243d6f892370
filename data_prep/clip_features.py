"""Compute the frozen CLIP's feature of every mask of a prepared set, once for all trainings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from monai.data import DataLoader
from monai.transforms import Compose, SelectItemsd
from tqdm import tqdm

from custom.atomic_write import write_whole
from custom.data.clip_features import (
    FEATURES_ARRAY,
    FEATURES_INDEX,
    FEATURES_KEYS,
    FORMAT,
    VERSION,
    index_digest,
)
from custom.data.datasets import MaskDataset
from custom.data.prepared import load_dataset
from custom.errors import InputError
from custom.networks.clip import CLIP_CROP_SIZE, FrozenCLIP, load_clip
from custom.transforms import Boxd, CropBoxesd, LoadSliced, PickMasksd
from custom.transforms.clip_features import clip_name


@dataclass(frozen=True)
class FeatureReport:
    """What was written: name of the CLIP, number of masks, width of the features, and the file."""

    clip: str
    masks: int
    width: int
    path: Path

    def __str__(self) -> str:
        return f"{self.masks} features of {self.clip}, {self.width} numbers each, written to {self.path}"


def cache_clip_features(
    dataset_dir: str | os.PathLike[str],
    clip: str = "auto",
    *,
    batch_size: int = 64,
    workers: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> FeatureReport:
    """Write the CLIP feature of each mask in a prepared set, as files for ``ClipFeatures``.

    The crop is the native image inside the tight box, 224 x 224, as cut by ``CropBoxesd``. The random shift of the box
    and the flips of a training do not apply to it: the network then gets the shifted box with the feature of the tight
    one. A set that is prepared again needs new features.

    Args:
        dataset_dir: folder of the prepared set.
        clip: "auto" for PubMedCLIP, or any other name for ``load_clip``.
        batch_size: crops that CLIP encodes at once.
        workers: processes that cut crops; default: the CPU cores, at most 8. 0 cuts them in this process.
        device: where CLIP runs; default: the GPU, if there is one.
        progress: show a progress bar on a terminal.

    Raises:
        InputError: the set or the CLIP cannot be read, or the features cannot be written.
    """
    prepared = load_dataset(dataset_dir)
    name, digest = clip_name(clip), index_digest(prepared.root)
    towers = _load(name)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    crops = Compose(
        [
            LoadSliced(["image", "label"]),
            PickMasksd("label"),
            Boxd("label"),
            CropBoxesd("image", crops={"clip_crop": CLIP_CROP_SIZE}),
            SelectItemsd("clip_crop"),
        ]
    )
    dataset = MaskDataset(prepared.training + prepared.validation, crops)
    workers = min(os.cpu_count() or 1, 8) if workers is None else workers
    loader = DataLoader(dataset, batch_size=batch_size, num_workers=workers)
    batches = tqdm(loader, unit="batch", disable=None if progress else True)
    table = dataset.table
    keys = np.stack([np.repeat(table.z, np.diff(table.mask_offset)), table.label], axis=1).astype(np.int32)
    ends = table.mask_offset[table.slice_offset].tolist()
    index = {
        "format": FORMAT,
        "version": VERSION,
        "clip": name,
        "width": towers.width,
        "dataset": digest,
        "cases": {case.case: rows for case, *rows in zip(dataset.data, ends, ends[1:], strict=False)},
    }
    path = prepared.root / FEATURES_ARRAY
    try:
        (prepared.root / FEATURES_INDEX).unlink(missing_ok=True)  # it would describe features that are being replaced
        write_whole(path, lambda file: _write(file, _encode(towers.to(device), batches), (len(dataset), towers.width)))
        write_whole(prepared.root / FEATURES_KEYS, lambda file: np.save(file, keys, allow_pickle=False))
        write_whole(prepared.root / FEATURES_INDEX, lambda file: file.write(json.dumps(index).encode()))
    except OSError as error:
        raise InputError(
            path, "out", error.strerror or error, "a folder that can be written, with free space"
        ) from error
    return FeatureReport(name, len(dataset), towers.width, path)


def _load(name: str) -> FrozenCLIP:
    """Load a CLIP, which is required; PubMedCLIP is loaded by its own name, since "auto" would accept its absence."""
    found = "no CLIP"
    try:
        towers = load_clip(name)
    except InputError as error:
        towers, found = None, error.found
    if towers is None:
        raise InputError("clip", name, found, "a reachable hub name, or a local folder (--clip /path/to/folder)")
    return towers


def _encode(towers: FrozenCLIP, batches: Iterator[dict[str, torch.Tensor]]) -> Iterator[np.ndarray]:
    for batch in batches:
        yield towers.encode_image(batch["clip_crop"][:, 0]).cpu().numpy()  # Bx1x3x224x224 -> BxF


def _write(file: BinaryIO, rows: Iterator[np.ndarray], shape: tuple[int, int]) -> None:
    """Write a ``.npy`` array batch by batch, so that it need not fit into memory."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    for batch in rows:
        file.write(np.ascontiguousarray(batch, "<f4").tobytes())
