"""Segment by boxes: ``python -m custom.segment IMAGE --boxes "[[x0,y0,x1,y1]]" --modality US --out DIR``."""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path

import fire

from custom.bundle_folder import BUNDLE
from custom.command_line import told_in_one_line
from custom.errors import InputError
from custom.images.intensity import parse_window
from custom.inference.cases import list_cases
from custom.inference.folder import Options, refuse_overwriting, segment_case, segment_cases
from custom.inference.models import Model, openvino_model, torch_model
from custom.modalities import canonical_modality

DEFAULT_CHECKPOINT = BUNDLE / "models" / "model.pt"
BACKENDS = ("torch", "openvino")


def segment(
    image: str,
    *,
    out: str,
    boxes: list | None = None,
    modality: str | None = None,
    checkpoint: str = str(DEFAULT_CHECKPOINT),
    clip: str = "auto",
    backend: str = "torch",
    model: str | None = None,
    precision: str | None = None,
    device: str | None = None,
    overlap: str = "logit",
    separate: bool = False,
    follow: bool = True,
    ct_window: str = "soft_tissue",
    suv_max: float | None = None,
) -> None:
    """Segment one image, a folder of images, or the images of a JSON list.

    An image is a picture (PNG, JPEG, TIFF, BMP), a TIFF stack, NIfTI, a DICOM file or a folder with one series, or a
    CVPR24 npz. Results are written in its kind and place: <name>_mask.* (value k for box k; DICOM SEG for DICOM; of an
    npz <name>.npz with segs), <name>_overlay.png, and <name>.json with the numbers.

    Of many images those are skipped whose results are there and still hold, a bad one does not stop the others, and
    under torchrun each process takes its share. report_<rank>.json lists what was done; with one process the exit
    code is 1 if an image failed (torchrun would stop the other processes for it).

    Args:
        image: image, folder of images, or JSON list [{"image": path, "boxes": [...], "modality": optional}, ...] with
            paths relative to the list.
        out: folder for the results.
        boxes: one box or a list of boxes: x_min y_min x_max y_max, of a volume x_min y_min z_min x_max y_max z_max, in
            pixels of the file as stored (NIfTI: i j k; DICOM: column, row, slice from inferior, right or anterior),
            both ends inside. An npz has its own.
        modality: one of the eleven; else DICOM's, or the file name's (2D_US_7.png), or what the network itself says.
        checkpoint: weights; "lite_medsam" for LiteMedSAM's.
        clip: the CLIP the weights were trained with: auto, none, a hub name or a local folder.
        backend: torch, or openvino, which runs an exported model and needs no PyTorch.
        model: folder of the exported model.
        precision: of the arithmetic: f32 or bf16.
        device: where PyTorch computes, e.g. cpu or cuda:1.
        overlap: what a pixel in several masks becomes: logit (the largest), smaller (mask), last (box).
        separate: True writes a file for each box, <name>_mask_<k>.* with 0 and 1.
        follow: False prompts every slice of a volume with the box itself, not with the mask of the slice before.
        ct_window: soft_tissue, lung, bone, brain or "level,width" in HU, for CT that is not 8 bits.
        suv_max: upper end of the range of a PET in SUV.

    Raises:
        InputError: something given cannot be used.
    """
    options = Options(
        window=parse_window(ct_window), suv_max=suv_max, overlap=overlap, separate=separate, follow=follow
    )
    known = None if modality is None else canonical_modality(modality, "--modality")
    cases, several = list_cases(str(image), boxes=boxes, modality=known)  # a file named 2024 arrives as a number
    folder = Path(str(out))
    refuse_overwriting(cases, str(image), folder)
    network = _model(backend, checkpoint=checkpoint, clip=clip, folder=model, precision=precision, device=device)
    if not several:
        segment_case(cases[0], network, options, folder)
        print(folder / f"{cases[0].name}_overlay.png")
        return
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    summary = segment_cases(cases, network, options, folder, rank=rank, world=world)
    for line in summary.failed:
        print(f"failed: {line}")
    print(f"{len(summary.written)} written, {summary.skipped} there before, {len(summary.failed)} failed: {folder}")
    if summary.failed and world == 1:
        sys.exit(1)


def _model(
    backend: str, *, checkpoint: str, clip: str, folder: str | None, precision: str | None, device: str | None
) -> Model:
    if backend == "torch":
        return torch_model(checkpoint, clip=clip, precision=precision, device=device)
    if backend == "openvino":
        if device is not None:
            raise InputError("arguments", "device", repr(device), "nothing: an exported model runs on the processor")
        return openvino_model(folder, precision=precision)
    raise InputError("arguments", "backend", repr(backend), ", ".join(BACKENDS))


def main() -> None:
    """Run the command line; bad input is told in one line."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold what the terminal cannot show
    with told_in_one_line():
        fire.Fire(segment)


if __name__ == "__main__":
    main()
