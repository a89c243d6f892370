"""Training from the client: the saved labels become a prepared set, the bundle trains on it, the server takes over."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from custom.atomic_write import write_whole
from custom.bundle_folder import CONFIGS
from custom.bundle_run import run_bundle
from custom.errors import InputError
from custom.images.reading import read_image
from custom.label_app.service import CHOICES, declared_modality
from custom.label_app.training_set import Labelled, prepare_labels
from custom.label_app.weights import Weights

#: What the client can set, and its defaults: gentle enough for a few labels on a processor without a GPU.
DEFAULTS: dict[str, Any] = {
    "max_epochs": 3,
    "boxes_per_epoch": 64,
    "batch_size": 4,
    "lr": 5e-5,
    "freeze_image_encoder": True,
}


class FineTune(TrainTask):
    """Fine-tunes the weights in use on the final labels of the datastore.

    It runs ``configs/train.json`` of the bundle in a process of its own. The weights of its best validation take the
    place of those in use when it has ended well; after an error nothing changes.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__("Fine-tune MCP-MedSAM on the saved labels")
        self.weights, self._stats_file = weights, weights.folder / "stats.json"

    def config(self) -> dict[str, Any]:
        """Return what the client can set."""
        return {"modality": list(CHOICES), **DEFAULTS}

    def stats(self) -> dict[str, Any]:
        """Return what the last training reported: best_metric is the mean DSC of its best validation."""
        try:
            return json.loads(self._stats_file.read_bytes())
        except (OSError, ValueError):
            return {}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train; return what ``stats`` will.

        Raises:
            InputError: no usable labels, an undeclared modality, or a setting that is not allowed.
            BundleError: the training ended with an error.
        """
        start, settings, folder = time.time(), _checked(request), self.weights.folder / "training"
        print(prepare_labels(labelled(datastore, declared_modality(request)), folder), flush=True)
        for leftover in ("weights", "eval"):
            shutil.rmtree(folder / leftover, ignore_errors=True)
        run_bundle("training", [CONFIGS / "train.json"], self._overrides(settings, folder))
        os.replace(folder / "weights" / "model.pt", self.weights.trained)
        shutil.rmtree(folder / "weights")  # what remains is for resuming, hundreds of megabytes
        stats = {
            "best_metric": _best_dice(folder / "eval" / "summary.json"),
            "epoch": settings["max_epochs"],
            "total_epochs": settings["max_epochs"],
            "start_ts": int(start),
            "total_time": round(time.time() - start, 1),
        }
        write_whole(self._stats_file, lambda file: file.write(json.dumps(stats, indent=2).encode()))
        return stats

    def _overrides(self, settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        steps = max(1, settings["boxes_per_epoch"] // settings["batch_size"]) * settings["max_epochs"]
        device = self.weights.conf.device
        return {
            "dataset_dir": folder / "prepared",
            "ckpt_dir": folder / "weights",
            "output_dir": folder / "eval",
            "checkpoint": self.weights.checkpoint,
            "clip": self.weights.conf.clip,
            "epochs": settings["max_epochs"],
            "epoch_length": settings["boxes_per_epoch"],
            "batch_size": settings["batch_size"],
            "lr": settings["lr"],
            "final_lr": settings["lr"] / 4,
            "warmup": max(1, steps // 10),
            "freeze_image_encoder": settings["freeze_image_encoder"],
            "num_workers": 0,
            "val_slices": 3,
            "val_masks": 4,
            "save_interval": steps,
            **({} if device is None else {"device": device}),
        }


def labelled(datastore: Datastore, modality: str | None) -> list[Labelled]:
    """List the images with a final label.

    The modality is the one given; else the one a client chose for the image before; else that of the file's name.

    Raises:
        InputError: nothing declares the modality of an image.
    """
    pairs = []
    for entry in datastore.datalist():
        image = Path(entry["image"])
        name = next((i for i in datastore.list_images() if Path(datastore.get_image_uri(i)) == image), image.name)
        declared = modality or declared_modality(datastore.get_image_info(name)) or read_image(image).modality
        if declared is None:
            raise InputError(name, "modality", "nothing", f"one of {', '.join(CHOICES[1:])} in the request's modality")
        pairs.append(Labelled(name=name, image=image, label=Path(entry["label"]), modality=declared))
    return pairs


def _checked(request: Mapping[str, Any]) -> dict[str, Any]:
    settings = {name: request.get(name, default) for name, default in DEFAULTS.items()}
    for name in ("max_epochs", "boxes_per_epoch", "batch_size"):
        value = settings[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError("request", name, repr(value), "a whole number from 1 up")
    if isinstance(settings["lr"], bool) or not isinstance(settings["lr"], (int, float)) or not 0 < settings["lr"] < 1:
        raise InputError("request", "lr", repr(settings["lr"]), "a number between 0 and 1")
    if not isinstance(settings["freeze_image_encoder"], bool):
        raise InputError("request", "freeze_image_encoder", repr(settings["freeze_image_encoder"]), "true, false")
    return settings


def _best_dice(summary: Path) -> float | None:
    try:
        return round(float(json.loads(summary.read_bytes())["mean"]["dsc"]) / 100, 4)
    except (OSError, ValueError, KeyError, TypeError):
        return None
