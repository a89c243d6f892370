"""Segment a picture by boxes: ``python -m custom.segment IMAGE --boxes "[[x0,y0,x1,y1]]" --modality US --out DIR``."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import fire
import numpy as np
from skimage import io

from custom.errors import InputError
from custom.inference import BoxSegmenter, as_uint8, draw_overlay
from custom.modalities import MODALITIES, canonical_modality
from custom.networks import MCPMedSAM, start_network
from custom.transforms import check_boxes

DEFAULT_CHECKPOINT = Path(__file__).parents[1] / "bundle" / "models" / "model.pt"


def segment(
    image: str,
    *,
    boxes: list,
    out: str,
    modality: str | None = None,
    checkpoint: str = str(DEFAULT_CHECKPOINT),
    clip: str = "auto",
) -> None:
    """Segment a picture and write ``<name>_mask.png``, ``<name>_overlay.png`` and ``<name>.json``.

    Args:
        image: picture, 8 bits a channel, grey or RGB (an alpha channel is left away).
        boxes: one box or a list of boxes, x_min y_min x_max y_max in pixels, both ends inside.
        out: folder for the results.
        modality: one of the eleven; unknown by default.
        checkpoint: weights; "lite_medsam" for LiteMedSAM's.
        clip: the CLIP the weights were trained with: auto, none, a hub name or a local folder.

    Raises:
        InputError: something given cannot be used.
    """
    picture = read_picture(image)
    checked = check_boxes(boxes, picture.shape[:2], image)
    modality = None if modality is None else canonical_modality(modality, "--modality")
    network = MCPMedSAM().eval()
    towers = start_network(network, checkpoint, clip)
    result = BoxSegmenter(clip=towers).segment_picture(network, picture, checked, modality)

    folder, name = Path(str(out)), Path(image).stem  # a folder named 2024 arrives as a number
    folder.mkdir(parents=True, exist_ok=True)
    io.imsave(folder / f"{name}_mask.png", result.labels, check_contrast=False)
    io.imsave(folder / f"{name}_overlay.png", draw_overlay(picture, result.labels, checked), check_contrast=False)
    report = {"image": image, "modality": modality, "boxes": []}
    for k, box in enumerate(checked.tolist()):
        entry = {"box": box, "iou": round(float(result.iou[k]), 4), "area": int((result.labels == k + 1).sum())}
        if result.modality is not None:
            likely = int(result.modality[k].argmax())
            entry |= {"likely_modality": MODALITIES[likely], "probability": round(float(result.modality[k, likely]), 4)}
        report["boxes"].append(entry)
    (folder / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"{folder / name}_overlay.png")


def read_picture(path: str) -> np.ndarray:
    """Read a picture: HxW or HxWx3 uint8.

    Raises:
        InputError: no such file, not a picture, or more than 8 bits a channel.
    """
    if not Path(path).is_file():
        raise InputError(path, "image", "no file", "a PNG, JPEG, TIFF or BMP picture")
    try:
        picture = io.imread(path)
    except Exception as error:  # every image plugin has errors of its own
        raise InputError(path, "image", f"{type(error).__name__}", "a PNG, JPEG, TIFF or BMP picture") from None
    if picture.ndim == 3 and picture.shape[2] == 4:
        picture = picture[:, :, :3]
    if picture.ndim != 2 and not (picture.ndim == 3 and picture.shape[2] == 3):
        raise InputError(path, "image", f"shape {picture.shape}", "HxW or HxWx3")
    return as_uint8(picture, path)


def main() -> None:
    """Run the command line; bad input is told in one line."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        fire.Fire(segment)
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
