"""Hostile files, at the default limits: each must be refused at small cost."""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from custom.checkpoints.loading import read_state_dict
from custom.data.prepared import load_dataset
from custom.images.dicom import read_series
from custom.images.reading import read_image
from custom.json_files import read_json
from data_prep.readers.coco import CocoReader
from data_prep.readers.nifti import NiftiReader
from tests.custom.conftest import axial_series
from tests.custom.images.test_bombs import bmp, jpeg, nifti, npz
from tests.reliability.fuzz import Target, run_target
from tests.reliability.image_targets import GREY, VOLUME
from tests.reliability.report import PartReport

_SIDE = 32


def run_part(out: Path, *, scale: float) -> PartReport:
    """Read every hostile file in its own process; ``scale`` has no effect, since there is one of each."""
    start, rows, failures = time.perf_counter(), [], []
    for name, target in HOSTILE.items():
        result = run_target(target, 1, 0)
        failures += [f"{name}: {line}" for line in result.failures]
        if result.refused != 1:
            failures.append(f"{name}: not refused")
        rows.append({"file": name, "refused": result.refused, "s": result.slowest_s, "MB": result.peak_mb})
    return PartReport("security", rows, failures, time.perf_counter() - start)


class Unwanted:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def _same(rng: Random, data: bytes) -> bytes:
    return data


def _hostile(file: str, write: Callable[[Path], object], read: Callable[[Path], object] = read_image) -> Target:
    return Target(file, partial(_written, file, write), read, _same, limits={})


def _written(file: str, write: Callable[[Path], object], folder: Path) -> Sequence[bytes]:
    (folder / file).parent.mkdir(exist_ok=True)
    write(folder / file)
    return [(folder / file).read_bytes()]


def _png(path: Path) -> None:
    Image.fromarray(GREY).save(path)
    content = path.read_bytes()
    chunk = b"IHDR" + struct.pack(">II", 10**5, 10**5) + content[24:29]
    path.write_bytes(content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:])


def _eps(path: Path) -> None:
    Image.fromarray(GREY).save(path, "EPS")


def _deep(path: Path) -> None:
    path.write_text("[" * 10**6)


def _tiff(path: Path, *, tags: Sequence[str] = (), loop: bool = False) -> None:
    image = np.zeros((_SIDE, _SIDE), np.uint8)
    tifffile.imwrite(path, image, tile=(_SIDE, _SIDE), compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in tags:
            file.pages[0].tags[name].overwrite(60_000)
        place = file.pages[0].offset
    if loop:
        content = bytearray(path.read_bytes())
        (count,) = struct.unpack_from("<H", content, place)
        struct.pack_into("<I", content, place + 2 + 12 * count, place)
        path.write_bytes(content)


def _dicom(path: Path, **tags: Any) -> None:
    axial_series(path.parent / "ct", VOLUME[:1], **tags)
    path.write_bytes((path.parent / "ct" / "000.dcm").read_bytes())


def _objects(path: Path) -> None:
    np.savez(path, imgs=np.array([Unwanted(path.with_name("made"))], object), boxes=[[1, 2, 3, 4]])


def _weights(path: Path) -> None:
    import torch

    torch.save({"model": Unwanted(path.with_name("made"))}, path)


def _read_weights(read: Callable[[Path], object], path: Path) -> None:
    try:
        read(path)
    finally:
        if path.with_name("made").exists():
            raise RuntimeError("the code in the file was run")


def _coco(path: Path, *, segmentation: Any, file: str = "a.png") -> None:
    Image.fromarray(GREY).save(path.with_name("a.png"))
    Image.fromarray(GREY).save(path.parents[1] / "secret.png")
    height, width = GREY.shape
    index = {
        "images": [{"id": 1, "file_name": file, "height": height, "width": width}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation}],
        "categories": [{"id": 1, "name": "polyp"}],
    }
    path.write_text(json.dumps(index))


def _first_case(make: Callable[[Path], Any], path: Path) -> None:
    reader = make(path.parent)
    source = reader.sources()[0]
    if source.error is not None:
        raise source.error
    reader.load(source)


def _decathlon(path: Path) -> None:
    pair = {"image": "../secret.nii.gz", "label": "../secret.nii.gz"}
    reported = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "training": [pair]}
    nifti(path.parents[1] / "secret.nii.gz")
    path.write_text(json.dumps(reported))


def _prepared(path: Path) -> None:
    np.save(path.parents[1] / "secret.npy", GREY[None])
    case = {"case": "a", "modality": "US", "dataset": "x", "dimension": 2, "channels": 1, "spacing": None, "slices": []}
    case |= {"image": "../secret.npy", "label": "../secret.npy", "shape": [1, *GREY.shape], "labels": {}}
    head = {"format": "mcp-medsam-prepared", "version": 1, "training": [case], "validation": []}
    path.write_text(json.dumps(head))


def _load_set(path: Path) -> None:
    load_dataset(path.parent)


_COCO = partial(_first_case, partial(CocoReader, modality="US"))
_SQUARE = [[1, 1, 9, 1, 9, 9]]

HOSTILE: dict[str, Target] = {
    "PNG of 100,000 x 100,000": _hostile("a.png", _png),
    "JPEG of 65,000 x 65,000": _hostile("a.jpg", jpeg),
    "BMP of 100,000 x 100,000": _hostile("a.bmp", bmp),
    "EPS named PNG": _hostile("a.png", _eps),
    "TIFF of 60,000 x 60,000": _hostile("a.tif", partial(_tiff, tags=("ImageWidth", "ImageLength"))),
    "TIFF with a tile of 60,000 x 60,000": _hostile("a.tif", partial(_tiff, tags=("TileWidth", "TileLength"))),
    "TIFF whose page follows itself": _hostile("a.tif", partial(_tiff, loop=True)),
    "NIfTI of 30,000^3": _hostile("a.nii", partial(nifti, shape=(30_000,) * 3)),
    "NIfTI of 1,000^3 in a few bytes of gzip": _hostile("a.nii.gz", partial(nifti, shape=(1000,) * 3)),
    "npz of 1,000,000 x 1,000,000": _hostile("2D_US_a.npz", partial(npz, shape=(10**6, 10**6))),
    "npz of 10^15 values without bytes": _hostile("2D_US_a.npz", partial(npz, shape=(10**15,), descr="|S0")),
    "npz of pickled objects": _hostile("2D_US_a.npz", _objects, partial(_read_weights, read_image)),
    "DICOM of 65,535 x 65,535": _hostile("a.dcm", partial(_dicom, Rows=65_535, Columns=65_535), read_series),
    "DICOM of 2^31 - 1 frames": _hostile("a.dcm", partial(_dicom, NumberOfFrames=2**31 - 1), read_series),
    "JSON nested a million deep": _hostile("a.json", _deep, partial(read_json, allowed="")),
    "COCO run of five million bits": _hostile(
        "in/a.json", partial(_coco, segmentation={"size": list(GREY.shape), "counts": "o" * 10**6}), _COCO
    ),
    "COCO runs of 10^12 pixels": _hostile(
        "in/a.json", partial(_coco, segmentation={"size": [10**6] * 2, "counts": [10**12]}), _COCO
    ),
    "COCO outline of 10^7 pixels": _hostile(
        "in/a.json", partial(_coco, segmentation=[[0, 0, *[16, 12, 0, 0] * 5 * 10**5]]), _COCO
    ),
    "COCO picture outside of the folder": _hostile(
        "in/a.json", partial(_coco, segmentation=_SQUARE, file="../secret.png"), _COCO
    ),
    "dataset.json that names files outside": _hostile("in/dataset.json", _decathlon, partial(_first_case, NiftiReader)),
    "prepared set that names files outside": _hostile("in/dataset.json", _prepared, _load_set),
    "weights with code": _hostile("a.pt", _weights, partial(_read_weights, read_state_dict)),
}
