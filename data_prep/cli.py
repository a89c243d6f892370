"""The command line: ``python -m data_prep VERB --src ... --out ...``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from custom.command_line import run
from custom.errors import InputError
from custom.images.intensity import parse_window
from custom.json_files import read_json
from data_prep import DEFAULT_DEMO_DIR
from data_prep.pipeline import prepare
from data_prep.readers import READERS
from data_prep.splits import SplitRule
from data_prep.writer import PrepareOptions, whole_number


def shared_options(
    *,
    workers: int | None = None,
    ct_window: str = "soft_tissue",
    suv_max: float | None = PrepareOptions.suv_max,
    components: bool | str = PrepareOptions.components,
    min_size: int = PrepareOptions.min_size,
    max_masks: int | None = PrepareOptions.max_masks,
    val_fraction: float = SplitRule.val_fraction,
    patient_pattern: str | None = SplitRule.patient_pattern,
    leakage: str = SplitRule.leakage,
) -> tuple[int, PrepareOptions, SplitRule]:
    """Check the options of every verb that prepares a set.

    Args:
        workers: processes; by default the CPU cores, at most 8. 1 runs serially.
        ct_window: soft_tissue, lung, bone, brain, or "level,width" in HU; for CT that is not uint8.
        suv_max: upper end of the range of a PET in SUV; by default its percentiles.
        components: auto splits the masks of pictures into connected components and keeps those of volumes whole; True
            splits both, False none. Instance maps are never split.
        min_size: drop masks of fewer pixels or voxels.
        max_masks: list only the K largest masks of a slice; by default all.
        val_fraction: part of the patients of each data set for validation, if the source gives no split.
        patient_pattern: regular expression to search in the case name; its first group is the patient. By
            default the source's patient, else every case is its own patient.
        leakage: error or warn if a patient or an image is in training and in validation.

    Returns:
        The number of processes, the options for every case, and how cases are split.

    Raises:
        InputError: a value that is not allowed.
    """
    what = PrepareOptions(
        window=parse_window(ct_window), components=components, min_size=min_size, suv_max=suv_max, max_masks=max_masks
    )
    pattern = None if patient_pattern is None else str(patient_pattern)  # fire reads "(1)" as a number
    splits = SplitRule(val_fraction=val_fraction, patient_pattern=pattern, leakage=leakage)
    return whole_number("workers", min(os.cpu_count() or 1, 8) if workers is None else workers, 1), what, splits


class Commands:
    """Prepare data for training: arrays and one dataset.json in the folder --out.

    A second run into the same folder does only what is missing or has changed, also after an interruption. A case that
    cannot be used is reported with the reason, here and in report.json, and the exit code is 1.
    """

    def demo(self, *, out: str = str(DEFAULT_DEMO_DIR), **options: Any) -> None:
        """Make a small phantom set of all eleven modalities, the same on every run.

        Args:
            out: folder of the prepared set.
        """
        _prepare("demo", out, options)

    def manifest(self, *, src: str, out: str, **options: Any) -> None:
        """Prepare the cases of every <Modality>/manifest.jsonl (pictures and volumes).

        Args:
            src: folder with <Modality>/manifest.jsonl.
            out: folder of the prepared set.
        """
        _prepare("manifest", out, options, src)

    def npz(self, *, src: str, out: str, **options: Any) -> None:
        """Prepare {2D|3D}_{Modality}_*.npz files.

        Args:
            src: folder with the files, at any depth.
            out: folder of the prepared set.
        """
        _prepare("npz", out, options, src)

    def nifti(
        self,
        *,
        src: str,
        out: str,
        modality: str | None = None,
        images: str = "images",
        labels: str = "labels",
        names: Any = None,
        **options: Any,
    ) -> None:
        """Prepare NIfTI volumes: paired folders of images and labels, nnU-Net, or the Medical Segmentation Decathlon.

        Args:
            src: folder of the set.
            out: folder of the prepared set.
            modality: one of the eleven, for volumes whose channel does not name one.
            images: folder of the images below SRC.
            labels: folder of the labels below SRC.
            names: names of the ids, {1: liver} or a JSON file.
        """
        reader = {"modality": modality, "images": images, "labels": labels, "names": _mapping("names", names)}
        _prepare("nifti", out, options, src, **reader)

    def dicom(self, *, src: str, out: str, modality: str | None = None, names: Any = None, **options: Any) -> None:
        """Prepare DICOM series with the SEG or RTSTRUCT that refers to them.

        Args:
            src: folder with DICOM files, at any depth.
            out: folder of the prepared set.
            modality: one of the eleven, in place of DICOM's.
            names: names of the ids, {1: liver} or a JSON file, in place of the names in the files.
        """
        _prepare("dicom", out, options, src, modality=modality, names=_mapping("names", names))

    def images(
        self,
        *,
        src: str,
        out: str,
        modality: str,
        images: str = "images",
        masks: str = "masks",
        kind: str = "auto",
        palette: Any = None,
        names: Any = None,
        **options: Any,
    ) -> None:
        """Prepare pictures with mask pictures.

        Args:
            src: folder of the set, with the two folders or with train/ and val/ that hold both.
            out: folder of the prepared set.
            modality: one of the eleven.
            images: folder of the pictures below SRC.
            masks: folder of the masks below SRC.
            kind: meaning of the pixels of masks: auto, ids, instances, binary or colours.
            palette: names of the colours, {"#ff0000": polyp} or a JSON file.
            names: names of the ids, {1: polyp} or a JSON file.
        """
        reader = {"modality": modality, "images": images, "masks": masks, "kind": kind}
        reader |= {"palette": _mapping("palette", palette), "names": _mapping("names", names)}
        _prepare("images", out, options, src, **reader)

    def coco(self, *, src: str, out: str, modality: str, annotations: str | None = None, **options: Any) -> None:
        """Prepare pictures with COCO annotations.

        Args:
            src: folder of the pictures.
            out: folder of the prepared set.
            modality: one of the eleven.
            annotations: the annotation file, also relative to SRC; by default the JSON files in SRC or SRC/annotations.
        """
        _prepare("coco", out, options, src, modality=modality, annotations=annotations)

    def check(self, dataset_dir: str) -> None:
        """Check a prepared set against its arrays; exit code 1 if there are problems.

        Args:
            dataset_dir: folder of the prepared set.
        """
        from data_prep.check import check

        report = check(Path(str(dataset_dir)))
        for title, lines in (("problem", report.problems), ("warning", report.warnings)):
            for line in lines:
                print(f"{title}: {line}")
        print(report.table())
        if report.problems:
            sys.exit(1)

    def show(self, dataset_dir: str, *, out: str, per_modality: int = 8, columns: int = 8, seed: int = 0) -> None:
        """Draw cases of a prepared set with their masks as one PNG.

        Args:
            dataset_dir: folder of the prepared set.
            out: the PNG file to write, e.g. sheet.png.
            per_modality: largest number of cases of each modality.
            columns: cases side by side.
            seed: a different number draws different cases and slices.
        """
        from data_prep.show import show

        sheet = show(Path(str(dataset_dir)), Path(str(out)), per_modality=per_modality, columns=columns, seed=seed)
        print(sheet)

    def clip_features(
        self,
        dataset_dir: str,
        *,
        clip: str = "auto",
        batch_size: int = 64,
        workers: int | None = None,
        device: str | None = None,
    ) -> None:
        """Compute the CLIP features of a prepared set ahead of training.

        Args:
            dataset_dir: folder of the prepared set.
            clip: auto for PubMedCLIP, a hub name or a local folder.
            batch_size: crops that CLIP encodes at once.
            workers: processes that cut crops; by default the CPU cores, at most 8. 0 cuts them in this process.
            device: where CLIP runs, e.g. cpu or cuda:1; by default the GPU, if there is one.
        """
        from data_prep.clip_features import cache_clip_features

        options = {"batch_size": batch_size, "workers": workers, "device": device}
        print(cache_clip_features(Path(str(dataset_dir)), clip, **options))

    def speed(self, dataset_dir: str, *, seconds: float = 20.0) -> None:
        """Measure how fast slices and training samples of a prepared set are made.

        Args:
            dataset_dir: folder of the prepared set.
            seconds: how long to make samples.
        """
        from data_prep.speed import measure

        print(measure(Path(str(dataset_dir)), seconds=seconds))


def main() -> None:
    """Run the command line."""
    run(Commands(), name="python -m data_prep", options=shared_options)


def _prepare(verb: str, out: str, options: dict[str, Any], *src: str, **reader: Any) -> None:
    workers, what, splits = shared_options(**options)
    folder = Path(str(out))  # fire reads a folder named 2024 as a number
    report = prepare(
        READERS[verb](*(Path(str(place)) for place in src), **reader),
        folder,
        options=what,
        splits=splits,
        workers=workers,
    )
    for title, lines in (("left out", report.left_out), ("skipped", report.skipped), ("leakage", report.leakage)):
        for line in lines:
            print(f"{title}: {line}")
    cases = len(report.training) + len(report.validation)
    if not cases:
        raise InputError(folder, "cases", "none that could be prepared", "at least one usable case")
    print(report.table())
    earlier = f" ({report.reused} of them by an earlier run)" if report.reused else ""
    print(f"{cases} cases{earlier} in {report.seconds:.1f} s, {report.size / 1e6:.1f} MB written to {folder}")
    if report.skipped:
        print(f"{len(report.skipped)} cases skipped")
        sys.exit(1)


def _mapping(name: str, value: Any) -> dict | None:
    """Return an option that is a dict, or the path of a JSON file with one."""
    if value is None or isinstance(value, dict):
        return value
    allowed = "a dict such as {1: liver}, or a JSON file with one"
    content = read_json(str(value), allowed, field=name)
    if not isinstance(content, dict):
        raise InputError(value, name, type(content).__name__, allowed)
    return content
