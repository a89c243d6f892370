"""The commands for the faults: their inputs, how they are started, and the results they must write."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from custom.bundle_folder import BUNDLE, CONFIGS
from tests.reliability.inputs import write_images
from tests.reliability.stand_in import stand_in_model


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command.

    Attributes:
        name: key in ``COMMANDS``.
        fill: writes its inputs into a folder, made by it.
        run: runs it in this process, as its command line does, from the inputs to the folder of its results.
        contents: what must be the same in a folder of results, by name.
        lists: results that list what was done, and so differ if something was not done.
        heavy: it runs the real network, seconds each time.
    """

    name: str
    fill: Callable[[Path], None]
    run: Callable[[Path, Path], None]
    contents: Callable[[Path], dict[str, object]]
    lists: tuple[str, ...] = ()
    heavy: bool = False


def _files(out: Path) -> dict[str, object]:
    """Return every file's bytes; of JSON files without the seconds."""
    found: dict[str, object] = {}
    for path in out.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            content: object = path.read_bytes()
            if path.suffix == ".json":
                content = json.loads(content)
                content.pop("seconds", None) if isinstance(content, dict) else None
            found[path.relative_to(out).as_posix()] = content
    return found


def _masks_and_numbers(out: Path) -> dict[str, object]:
    """Omit the report, which describes only the last run."""
    return {name: content for name, content in _files(out).items() if not name.startswith("report_")}


def _fill_npz(folder: Path) -> None:
    folder.mkdir(parents=True)
    for n in range(4):
        rng, label = np.random.default_rng(n), np.zeros((24, 24), np.uint8)
        label[4:14, 5:17] = 1
        imgs, boxes = rng.integers(0, 256, label.shape, np.uint8), [[5, 4, 16, 13]]
        np.savez(folder / f"2D_US_Set_{n}.npz", imgs=imgs, gts=label, boxes=boxes)


def _fill_images(folder: Path) -> None:
    write_images(folder, 5)


def _arguments(module: Any, *arguments: object) -> None:
    sys.argv = [module.__name__, *map(str, arguments)]
    module.main()


def _prepare(inputs: Path, out: Path) -> None:
    from data_prep import cli

    _arguments(cli, "npz", "--src", inputs, "--out", out, "--workers", 1)


def _segment(inputs: Path, out: Path) -> None:
    from custom import segment
    from custom.inference import predictor

    predictor.choose_model = lambda **_: stand_in_model()
    _arguments(segment, inputs / "list.json", "--out", out)


def _fill_bundle(folder: Path) -> None:
    shutil.copytree(BUNDLE, folder, ignore=shutil.ignore_patterns("models", "eval", "__pycache__"))
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").write_bytes(np.random.default_rng(0).bytes(300_000))


def _package(inputs: Path, out: Path) -> None:
    from custom import package

    _arguments(package, "--bundle", inputs, "--out", out)


def _export(inputs: Path, out: Path) -> None:
    import custom.export.__main__ as export

    _arguments(export, "--checkpoint", inputs / "model.pt", "--out", out)


def _fill_weights(folder: Path) -> None:
    from custom.lite_medsam import lite_medsam_path

    folder.mkdir(parents=True)
    shutil.copyfile(lite_medsam_path(), folder / "model.pt")


def _fill_set(folder: Path) -> None:
    """Prepare the phantoms; two cases of each part stay in the index."""
    from data_prep.pipeline import prepare
    from data_prep.readers.demo import DemoReader

    prepare(DemoReader(), folder, progress=False)
    index = json.loads((folder / "dataset.json").read_text())
    for part in ("training", "validation"):
        index[part] = [next(case for case in index[part] if case["modality"] == name) for name in ("US", "CT")]
    (folder / "dataset.json").write_text(json.dumps(index))
    used = {case[key] for part in ("training", "validation") for case in index[part] for key in ("image", "label")}
    for path in (folder / "arrays").iterdir():
        if f"arrays/{path.name}" not in used:
            path.unlink()


_STAND_IN = {
    "network_def": {"_target_": "tests.reliability.stand_in_network.StandInNetwork"},
    "start": {"_target_": "tests.reliability.stand_in_network.start_nothing", "network": "@network"},
}
_SMALL = {"clip": "none", "val_slices": 1, "val_masks": 1, "silent": True, "device": "cpu"}


def _bundle(workflow: str, *configs: str, **options: object) -> None:
    """Run a workflow as ``python -m monai.bundle run`` does."""
    import torch
    from monai.bundle import run

    torch.set_num_threads(1)
    os.chdir(BUNDLE)
    run(workflow, config_file=[str(CONFIGS / f"{name}.json") for name in configs], **options)


def run_evaluation(inputs: Path, out: Path, *, num_workers: int = 0) -> None:
    """Evaluate the stand-in on a prepared set."""
    options = {"dataset_dir": str(inputs), "output_dir": str(out), "ckpt_dir": str(out)}
    _bundle("evaluating", "train", "evaluate", num_workers=num_workers, **options, **_SMALL, **_STAND_IN)


def _infer(inputs: Path, out: Path) -> None:
    options = {"dataset_dir": str(inputs), "output_dir": str(out), "clip": "none", "device": "cpu"}
    _bundle("run", "inference", **options, **_STAND_IN)


def run_training(inputs: Path, out: Path, *, num_workers: int = 0) -> None:
    """Train a decoder on a prepared set: two epochs of two steps, from the last checkpoint if there is one."""
    options = {"dataset_dir": str(inputs), "output_dir": str(out / "eval"), "ckpt_dir": str(out), "resume": True}
    frozen = {"modality_embedding": False, "content_cnn": False, "freeze_image_encoder": True}
    short = {"epochs": 2, "epoch_length": 2, "batch_size": 1, "save_interval": 1}
    _bundle("training", "train", num_workers=num_workers, **options, **_SMALL, **frozen, **short)


def _trained(out: Path) -> dict[str, object]:
    """Return the scores' bytes and the weights; a tensor as bytes, so that it can be compared."""
    import torch

    found: dict[str, object] = {}
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        if path.suffix in (".csv", ".json"):
            found[name] = path.read_bytes()
        elif path.name in ("last.pt", "model.pt"):
            content = torch.load(path, weights_only=True)
            tensors = content.get("model", content)
            found[name] = {key: value.numpy().tobytes() for key, value in tensors.items()}
    return found


_ALL = (
    Command(
        name="prepare",
        fill=_fill_npz,
        run=_prepare,
        contents=_files,
        lists=("report.json", "dataset.json", "journal.jsonl"),
    ),
    Command(
        name="segment",
        fill=_fill_images,
        run=_segment,
        contents=_masks_and_numbers,
    ),
    Command(name="package", fill=_fill_bundle, run=_package, contents=_files),
    Command(name="inference", fill=_fill_npz, run=_infer, contents=_files),
    Command(name="evaluate", fill=_fill_set, run=run_evaluation, contents=_files),
    Command(
        name="train",
        fill=_fill_set,
        run=run_training,
        contents=_trained,
        lists=("last.pt", "model.pt", "eval/cases.csv", "eval/summary.json"),
        heavy=True,
    ),
    Command(name="export", fill=_fill_weights, run=_export, contents=_files, heavy=True),
)
COMMANDS = {command.name: command for command in _ALL}
