"""The command line: ``python -m data_prep VERB --src ... --out ...``."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import fire

from custom.command_line import told_in_one_line
from custom.errors import InputError
from custom.images.intensity import parse_window
from custom.json_files import read_json
from data_prep import DEFAULT_DEMO_DIR
from data_prep.pipeline import prepare
from data_prep.readers import READERS
from data_prep.splits import SplitRule
from data_prep.writer import Options, whole_number

_TOOLS = ("check", "show", "clip-features", "speed")  # verbs that work on a prepared set
_OPTIONS = [
    "workers",
    "ct_window",
    *(f.name for part in (Options, SplitRule) for f in fields(part) if f.name != "window"),
]


class Commands:
    """Prepare data for training: arrays and one dataset.json in the folder --out.

    A second run into the same folder does only what is missing or has changed, also after a stop at any moment.
    A case that cannot be used is named with the reason, here and in report.json, and the exit code is 1.

    Every verb that prepares also takes:
      --workers N          processes (default: the CPU cores, at most 8); 1 runs serially
      --ct_window W        soft_tissue (default), lung, bone, brain, or "level,width" in HU; for CT that is not uint8
      --suv_max S          upper end of the range of a PET in SUV
      --components C       auto (default): masks of pictures are split into connected components, volumes are not;
                           True: both are; False: none; instance maps never are
      --min_size N         drop masks of fewer pixels or voxels (default 16)
      --max_masks K        list only the K largest masks of a slice (default: all)
      --val_fraction F     part of the patients of each data set for validation (default 0.1), where the source does
                           not tell the split
      --patient_pattern P  regular expression searched in the case name; its first group is the patient (default: the
                           source's patient, else every case is one of its own)
      --leakage L          error (default) or warn, when a patient or an image is in training and in validation
    """

    def demo(self, out: str = str(DEFAULT_DEMO_DIR), **options: Any) -> None:
        """Make a small phantom set of all eleven modalities, the same on every run."""
        _prepare("demo", out, options)

    def manifest(self, src: str | None = None, out: str | None = None, **options: Any) -> None:
        """Prepare every <Modality>/manifest.jsonl below --src (pictures and NIfTI)."""
        _prepare("manifest", out, options, _folder("src", src))

    def npz(self, src: str | None = None, out: str | None = None, **options: Any) -> None:
        """Prepare {2D|3D}_{Modality}_*.npz files below --src."""
        _prepare("npz", out, options, _folder("src", src))

    def nifti(
        self,
        src: str | None = None,
        out: str | None = None,
        modality: str | None = None,
        images: str = "images",
        labels: str = "labels",
        names: Any = None,
        **options: Any,
    ) -> None:
        """Prepare NIfTI volumes: --images and --labels folders below --src; --names is {id: name} or a JSON file."""
        reader = {"modality": modality, "images": images, "labels": labels, "names": _mapping("names", names)}
        _prepare("nifti", out, options, _folder("src", src), **reader)

    def dicom(
        self,
        src: str | None = None,
        out: str | None = None,
        modality: str | None = None,
        names: Any = None,
        **options: Any,
    ) -> None:
        """Prepare DICOM series with SEG or RTSTRUCT below --src; --names is {id: name} or a JSON file."""
        _prepare("dicom", out, options, _folder("src", src), modality=modality, names=_mapping("names", names))

    def images(
        self,
        src: str | None = None,
        out: str | None = None,
        modality: str | None = None,
        images: str = "images",
        masks: str = "masks",
        kind: str = "auto",
        palette: Any = None,
        names: Any = None,
        **options: Any,
    ) -> None:
        """Prepare pictures with mask pictures: --images and --masks folders below --src.

        --palette and --names are dicts or JSON files.
        """
        reader = {"modality": modality, "images": images, "masks": masks, "kind": kind}
        reader |= {"palette": _mapping("palette", palette), "names": _mapping("names", names)}
        _prepare("images", out, options, _folder("src", src), **reader)

    def coco(
        self,
        src: str | None = None,
        out: str | None = None,
        modality: str | None = None,
        annotations: str | None = None,
        **options: Any,
    ) -> None:
        """Prepare pictures with COCO annotations below --src."""
        _prepare("coco", out, options, _folder("src", src), modality=modality, annotations=annotations)

    def check(self, dataset_dir: str | None = None) -> None:
        """Check a prepared set against its arrays; exit code 1 if there are problems."""
        from data_prep.check import check

        report = check(_folder("dataset_dir", dataset_dir))
        for title, lines in (("problem", report.problems), ("warning", report.warnings)):
            for line in lines:
                print(f"{title}: {line}")
        print(report.table())
        if report.problems:
            sys.exit(1)

    def show(self, dataset_dir: str | None = None, out: str | None = None, **options: Any) -> None:
        """Draw cases of a prepared set with their masks as one PNG; --per_modality 8, --columns 8, --seed 0."""
        from data_prep.show import show

        _check_names(options, ("per_modality", "columns", "seed"))
        print(show(_folder("dataset_dir", dataset_dir), _folder("out", out), **options))

    def clip_features(self, dataset_dir: str | None = None, clip: str = "auto", **options: Any) -> None:
        """Compute the CLIP features of a prepared set ahead of training; --batch_size, --workers, --device."""
        from data_prep.clip_features import cache_clip_features

        _check_names(options, ("batch_size", "workers", "device"))
        print(cache_clip_features(_folder("dataset_dir", dataset_dir), clip, **options))

    def speed(self, dataset_dir: str | None = None, seconds: float = 20.0) -> None:
        """Measure how fast slices and training samples of a prepared set are made."""
        from data_prep.speed import measure

        print(measure(_folder("dataset_dir", dataset_dir), seconds=seconds))


def main() -> None:
    """Run the command line; bad input is one line on standard error and exit code 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold what the terminal cannot show
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):  # a verb that takes any option would take --help for one
        arguments = [a for a in arguments if a not in ("-h", "--help", "--")] + ["--", "--help"]
    with told_in_one_line():
        verbs = (*READERS, *_TOOLS)
        if arguments and arguments[0].replace("_", "-") not in verbs and not arguments[0].startswith("-"):
            raise InputError("arguments", "verb", repr(arguments[0]), ", ".join(verbs))
        fire.Fire(Commands(), arguments, name="python -m data_prep")


def _prepare(verb: str, out: Any, options: dict[str, Any], *place: Path, **reader: Any) -> None:
    out = _folder("out", out)
    workers, what, splits = _parse(options)
    report = prepare(READERS[verb](*place, **reader), out, options=what, splits=splits, workers=workers)
    for title, lines in (("left out", report.left_out), ("skipped", report.skipped), ("leakage", report.leakage)):
        for line in lines:
            print(f"{title}: {line}")
    cases = len(report.training) + len(report.validation)
    if not cases:
        raise InputError(out, "cases", "none that could be prepared", "at least one usable case")
    print(report.table())
    earlier = f" ({report.reused} of them by an earlier run)" if report.reused else ""
    print(f"{cases} cases{earlier} in {report.seconds:.1f} s, {report.size / 1e6:.1f} MB written to {out}")
    if report.skipped:
        print(f"{len(report.skipped)} cases skipped")
        sys.exit(1)


def _parse(arguments: dict[str, Any]) -> tuple[int, Options, SplitRule]:
    _check_names(arguments, _OPTIONS)
    values = dict(arguments)
    workers = whole_number("workers", values.pop("workers", min(os.cpu_count() or 1, 8)), 1)
    if "ct_window" in values:
        values["window"] = parse_window(values.pop("ct_window"))
    if "patient_pattern" in values:
        values["patient_pattern"] = str(values["patient_pattern"])  # fire makes "(1)" a number
    rule = {f.name: values.pop(f.name) for f in fields(SplitRule) if f.name in values}
    return workers, Options(**values), SplitRule(**rule)


def _check_names(arguments: dict[str, Any], allowed: Sequence[str]) -> None:
    for key in arguments:
        if key not in allowed:
            names = ", ".join(f"--{name}" for name in allowed)
            raise InputError("arguments", f"--{key}", "an unknown option", f"those of the verb (--help), {names}")


def _mapping(name: str, value: Any) -> dict | None:
    """Return an option that is a dict, or the path of a JSON file with one."""
    if value is None or isinstance(value, dict):
        return value
    allowed = "a dict such as {1: liver}, or a JSON file with one"
    content = read_json(str(value), allowed, field=name)
    if not isinstance(content, dict):
        raise InputError(value, name, type(content).__name__, allowed)
    return content


def _folder(name: str, value: Any) -> Path:
    if value is None or isinstance(value, bool):
        raise InputError("arguments", name, "nothing", f"--{name} FOLDER")
    return Path(str(value))  # a folder named 2024 arrives as a number
