"""Segment by boxes and clicks: ``python -m custom.segment IMAGE --boxes 20 34 70 75 --modality US --out DIR``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from custom.command_line import run
from custom.images.intensity import parse_window
from custom.inference.batch import SegmentOptions, check_out, segment_case, segment_cases
from custom.inference.cases import list_cases
from custom.inference.predictor import Predictor
from custom.inference.result_files import report_path
from custom.inference.summary import summary_table
from custom.modalities import canonical_modality


def segment(
    image: str,
    *,
    out: str,
    boxes: Any = None,
    points: Any = None,
    point_labels: Any = None,
    mask: str | None = None,
    slice: int | None = None,
    world: bool = False,
    margin: int = 0,
    names: Any = None,
    modality: str | None = None,
    format: str | None = None,
    separate: bool = False,
    overlap: str = "logit",
    follow: bool = True,
    ct_window: str = "soft_tissue",
    suv_max: float | None = None,
    frame: int | None = None,
    series: str | None = None,
    checkpoint: str | None = None,
    backend: str = "auto",
    model: str | None = None,
    precision: str | None = None,
    device: str | None = None,
    clip: str = "auto",
) -> None:
    """Segment one image, a folder of images, or the images of a list.

    An image is a picture (PNG, JPEG, WebP, BMP, TIFF), a TIFF stack, NIfTI, NRRD, MetaImage, MGZ, a DICOM file or a
    folder with DICOM series, or a CVPR24 npz. Three files are written: <name>_mask.* in the image's format and place
    (value k for box k; DICOM SEG for DICOM; of an npz <name>.npz with segs), <name>_overlay.png, and <name>.json with
    the numbers.

    With many images, those whose results are still valid are skipped, a bad image does not stop the others, and under
    torchrun each process takes its share. report_<rank>.json lists what was done. The exit code is 1 if an image
    failed. Under torchrun it stays 0, because torchrun would stop the other processes.

    Args:
        image: an image, a folder of images, or a list: JSON [{"image": path, "boxes": [...], "modality": optional,
            "names": optional}, ...], or CSV with the columns image, x_min, y_min, x_max, y_max and optionally z_min,
            z_max, slice, modality, name, one row a box. Only JSON can hold clicks and masks: the keys points,
            point_labels and mask, as below. Paths are relative to the list.
        out: folder for the results.
        boxes: one box as numbers (--boxes 20 34 70 75), several as "20 34 70 75; 1 2 9 9" or "[[20,34,70,75],...]":
            x_min y_min x_max y_max, in a volume x_min y_min z_min x_max y_max z_max, in pixels of the file as stored,
            both ends inside (NIfTI: i j k; DICOM: column, row, slice from inferior, right or anterior; the JSON file
            names the DICOM instance of each slice). Or a file: a CSV or JSON list for a folder, a ROI or line of 3D
            Slicer (.mrk.json), or a mask of any format, in which each label gives a box. Boxes given for a folder
            apply to each of its images. An npz has its own boxes.
        points: clicks that correct the mask, "x y; x y" or JSON [[x, y], [x, y]], in a volume x y z, in pixels as for
            boxes; several objects with | between them, "12 40; 15 52 | 80 33", or JSON with a list for each object,
            in the order of the boxes. In a picture, objects need no box: their first click finds them. The boxes of an
            npz are not used then. For weights that were trained with clicks.
        point_labels: for each click 1 (on the object) or 0 (beside it), "1 0" or "1 0 | 1"; 1 by default.
        mask: for a picture, a mask of any format to correct: each label is an object, in ascending order, which needs
            no box. Points belong to these objects.
        slice: for boxes of 4 numbers in a volume: the number of the only slice to segment.
        world: True if boxes and points are in mm, right-anterior-superior, as NIfTI and 3D Slicer show them.
        margin: pixels by which the boxes of a mask file grow.
        names: names of the objects, "tumor,liver"; a DICOM SEG gets their SNOMED codes where they are known.
        modality: one of CT, MR, PET, US, X-Ray, Mammography, OCT, Endoscopy, Fundus, Dermoscopy, Microscopy, or a
            common name of one (MRT, DX, histology). By default that of the DICOM header, or of the file name
            (2D_US_7.png), or what the network predicts.
        format: format of the masks: nifti, nrrd, mha, mgz, png, tiff, npz, seg, rtstruct. By default the image's own.
        separate: True writes one file per box, <name>_mask_<k>.* with 0 and 1.
        overlap: which mask gets a pixel that several cover: logit (that of the largest logit), smaller or last (box).
        follow: False prompts every slice of a volume with the box itself, not with the mask of the slice before.
        ct_window: soft_tissue, lung, bone, brain or "level,width" in HU, for CT that is not 8-bit.
        suv_max: upper end of the range of a PET in SUV.
        frame: number of the volume in a 4D file, from 0.
        series: which DICOM series of a folder: its UID, number or description.
        checkpoint: weights, by default those of the bundle; "lite_medsam" for LiteMedSAM's.
        backend: auto, torch or openvino. auto uses a GPU if there is one, else OpenVINO, for which the weights are
            prepared once, else PyTorch.
        model: folder of a network exported by custom.export, in place of a checkpoint.
        precision: of the arithmetic: f32 or bf16; by default the fastest on this machine.
        device: where PyTorch computes, e.g. cpu or cuda:1.
        clip: the CLIP the weights were trained with: auto, none, a hub name or a local folder.

    Raises:
        InputError: an argument or a file cannot be used.
    """
    options = SegmentOptions(
        window=parse_window(ct_window),
        suv_max=suv_max,
        frame=frame,
        series=None if series is None else str(series),
        overlap=overlap,
        separate=separate,
        follow=follow,
        format=format,
    )
    known = None if modality is None else canonical_modality(modality, "--modality")
    source, folder = str(image), Path(str(out))  # a file named 2024 arrives as a number
    cases, several = list_cases(
        source,
        boxes=boxes,
        modality=known,
        names=names,
        slices=slice,
        world=world,
        margin=margin,
        points=points,
        point_labels=point_labels,
        mask=mask,
    )
    check_out(folder, cases, source)
    predictor = Predictor(
        checkpoint, backend=backend, model=model, precision=precision, device=device, clip=clip, embeddings=0
    )
    if not several:
        report = segment_case(cases[0], predictor, options, folder)
        print(summary_table(report, report_path(folder, cases[0].name)))
        return
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    summary = segment_cases(cases, predictor, options, folder, rank=rank, world=world_size)
    print(f"{len(summary.written)} written, {summary.skipped} there before, {len(summary.failed)} failed: {folder}")
    if summary.failed and world_size == 1:
        sys.exit(1)


def main() -> None:
    """Run the command line; on bad input it ends with one line."""
    run(segment, name="python -m custom.segment")


if __name__ == "__main__":
    main()
