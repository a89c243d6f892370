"""Write the result for one image: masks, an overlay, and last a JSON file."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as Picture

from custom.atomic_write import write_whole
from custom.errors import InputError
from custom.images.formats import Format, fallback_format
from custom.inference.overlay import draw_montage, draw_result
from custom.inference.prompt_check import CheckedPrompts, placed_boxes
from custom.json_files import read_json

if TYPE_CHECKING:
    from custom.inference.result import Result

logger = logging.getLogger(__name__)

_QUICK = 2  # PNG compression level: a third of the time for a sixth more bytes


def report_path(folder: Path, name: str) -> Path:
    """Return the JSON file of a case."""
    return folder / f"{name}.json"


def read_report(folder: Path, name: str) -> dict[str, Any] | None:
    """Return what an earlier run wrote about a case; None if there is no such file."""
    try:
        report = read_json(report_path(folder, name), "a report")
    except InputError:
        return None
    files = report.get("files") if isinstance(report, dict) and "fingerprint" in report else None
    return report if isinstance(files, list) and all(isinstance(file, str) for file in files) else None


def is_finished(folder: Path, name: str, fingerprint: str) -> bool:
    """Return whether the results of a case exist and are still valid."""
    report = read_report(folder, name)
    return (
        report is not None
        and report["fingerprint"] == fingerprint
        and all((folder / Path(file).name).is_file() for file in report["files"])
    )


def write_result(
    result: Result,
    folder: Path,
    name: str,
    module: Format,
    *,
    separate: bool = False,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the masks, ``<name>_overlay.png`` and ``<name>.json``, and return the JSON's content.

    The masks are one label map ``<name>_mask.*`` (for an npz ``<name>.npz``), or with ``separate`` one file
    ``<name>_mask_<k>.*`` with the values 0 and 1 for each object k. Each file appears whole or not at all. The JSON
    file of an earlier run is removed first and the new one is written last, so that a JSON file always describes the
    files beside it. After an error, no file of this run remains.

    If the format fails after all, the masks are written in one that can hold any mask, with a warning, so that the
    result is not lost.

    Args:
        result: the result.
        folder: created if missing.
        name: name of the files.
        module: format of the masks, as chosen by ``mask_format``.
        separate: write one file per object.
        more: further entries of the JSON file.

    Raises:
        OSError: a file cannot be written.
    """
    start = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    earlier = read_report(folder, name) or {"files": []}
    report_path(folder, name).unlink(missing_ok=True)
    _remove(folder, (file for file in earlier["files"] if file.startswith(name) and Path(file).name == file))
    overlay = f"{name}_overlay.png"
    files = [overlay]
    try:
        try:
            files = [*_write_masks(result, folder, name, module, separate), overlay]
        except InputError as error:
            module = fallback_format(result.image)
            logger.warning("%s; the mask is written as %s", error, module.MASK)
            files = [*_write_masks(result, folder, name, module, separate), overlay]
        _write_png(folder / overlay, _draw(result))
        report = result.describe(separate=separate) | {"mask_format": module.MASK, "fingerprint": "", **(more or {})}
        report["files"] = files
        report["seconds"]["write"] = round(time.perf_counter() - start, 4)
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        write_whole(report_path(folder, name), lambda file: file.write(text.encode("utf-8", "backslashreplace")))
    except BaseException:
        _remove(folder, files)
        raise
    return report


def _write_masks(result: Result, folder: Path, name: str, module: Format, separate: bool) -> list[str]:
    """Write the masks and return their files, also the pixel files of NIfTI pairs; after an error none remains."""
    image, segmentation, ending = result.image, result.segmentation, module.mask_ending(result.image)
    names = dict(enumerate(result.names, start=1))
    if separate:
        masks = [f"{name}_mask_{k}{ending}" for k in names]
    else:
        challenge = image.format == module.MASK == "npz"
        masks = [f"{name}{ending}" if challenge else f"{name}_mask{ending}"]
    files = masks + [f"{mask.removesuffix('.hdr')}.img" for mask in masks if mask.endswith(".hdr")]
    try:
        if not separate:
            module.write_mask(folder / masks[0], segmentation.labels, names, image)
        for k, mask in enumerate(masks if separate else ()):
            module.write_mask(folder / mask, segmentation.masks[k].astype(np.uint8), {1: names[k + 1]}, image)
    except BaseException:
        _remove(folder, files)
        raise
    return files


def _remove(folder: Path, files: Iterable[str]) -> None:
    for file in files:
        (folder / file).unlink(missing_ok=True)


def _draw(result: Result) -> np.ndarray:
    image, labels = result.image, result.segmentation.labels
    named = [name if name != f"box {k}" else str(k) for k, name in enumerate(result.names, start=1)]
    if result.slices is not None:
        return _draw_slices(result, named)
    boxes, clicks = placed_boxes(image, result.boxes), None
    if result.corrections is not None:
        clicks = [(image.points_to_array(given.points), given.labels) for given in result.corrections]
    if image.kind == "picture":
        return draw_result(image.array, labels, boxes, result.iou, named, clicks)
    captions = [image.slice_name(z) for z in range(len(labels))]
    return draw_montage(image.array, labels, boxes, captions, result.iou, named, clicks)


def _draw_slices(result: Result, named: list[str]) -> np.ndarray:
    """Draw the slices that have boxes, turned as the network saw them."""
    image, kept = result.image, list(dict.fromkeys(result.slices))
    pictures = [image.take_slice(k) for k in kept]
    ijk = image.to_ijk(result.segmentation.labels)
    labels = [picture.from_ijk(ijk[:, :, k : k + 1]) for picture, k in zip(pictures, kept, strict=True)]
    places = [kept.index(k) for k in result.slices]
    flat = [pictures[n].boxes_to_array(result.boxes[i : i + 1])[0] for i, n in enumerate(places)]
    boxes = CheckedPrompts(np.stack(flat), tuple(places)).in_volume
    clicks = [
        (np.insert(pictures[n].points_to_array(given.points), 2, n, axis=1), given.labels)
        for n, given in zip(places, result.corrections or (), strict=False)
    ]
    if len(kept) == 1:
        clicks = [(points[:, :2], signs) for points, signs in clicks]
        return draw_result(pictures[0].array, labels[0], np.stack(flat), result.iou, named, clicks)
    stack = np.stack([picture.array for picture in pictures])
    return draw_montage(stack, np.stack(labels), boxes, [f"z {k}" for k in kept], result.iou, named, clicks)


def _write_png(path: Path, picture: np.ndarray) -> None:
    content = BytesIO()
    Picture.fromarray(picture).save(content, "PNG", compress_level=_QUICK)
    write_whole(path, lambda file: file.write(content.getvalue()))
