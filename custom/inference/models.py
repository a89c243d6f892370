"""What can run the network, with what its results tell about it; a backend is imported and started when needed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from custom.errors import InputError
from custom.inference.backend import Backend

TORCH_PRECISIONS = ("f32", "bf16")
LITE_MEDSAM = "lite_medsam"


class Model:
    """A network that is started for the first image that needs it.

    Args:
        told: what the results say about it: backend, precision, checkpoint, digest and what else they depend on.
        make: starts the backend.
    """

    def __init__(self, *, told: Mapping[str, str], make: Callable[[], Backend]) -> None:
        self.told = dict(told)
        self._make = make

    def start(self) -> Backend:
        """Return the backend, the same every time.

        Raises:
            InputError: it cannot be had.
        """
        return self._backend

    @cached_property
    def _backend(self) -> Backend:
        return self._make()


def torch_model(
    checkpoint: str, *, clip: str = "auto", precision: str | None = None, device: str | None = None
) -> Model:
    """Run a checkpoint with PyTorch.

    Args:
        checkpoint: weights; "lite_medsam" for LiteMedSAM's.
        clip: the CLIP the weights were trained with: auto, none, a hub name or a local folder.
        precision: "f32" (default) or "bf16".
        device: e.g. "cpu" or "cuda:1"; by default the GPU where there is one, under torchrun that of ``LOCAL_RANK``.

    Raises:
        InputError: no such checkpoint or precision.
    """
    precision = precision or TORCH_PRECISIONS[0]
    if precision not in TORCH_PRECISIONS:
        raise InputError("arguments", "precision", repr(precision), ", ".join(TORCH_PRECISIONS))
    told = {"backend": "torch", "precision": precision, "checkpoint": str(checkpoint), "clip": str(clip)}
    return Model(
        told=told | {"digest": _digest(checkpoint)},
        make=lambda: _start_torch(str(checkpoint), str(clip), precision == "bf16", device),
    )


def openvino_model(folder: str | None, *, precision: str | None = None) -> Model:
    """Run an exported network with OpenVINO, without PyTorch.

    Args:
        folder: what ``python -m custom.export`` wrote.
        precision: "f32" or "bf16"; that of the export by default.

    Raises:
        InputError: no such folder.
    """
    from custom.export.folder import read_description

    if folder is None:
        raise InputError("arguments", "model", "nothing", "the folder of an exported network")
    description = read_description(str(folder))
    told = {
        "backend": "openvino",
        "precision": precision or description.precision,
        "checkpoint": description.checkpoint,
        "digest": description.digest,
    }
    return Model(told=told, make=lambda: _start_openvino(str(folder), precision))


def _digest(checkpoint: str) -> str:
    """Return the first 16 hexadecimal digits of the file's SHA-256."""
    path = Path(str(checkpoint))
    if path.name == LITE_MEDSAM:
        from custom.networks import lite_medsam_path

        path = lite_medsam_path()
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        raise InputError(checkpoint, "checkpoint", "no file", "a checkpoint file (.pt, .pth)") from None


def _start_torch(checkpoint: str, clip: str, bfloat16: bool, device: str | None) -> Backend:
    import torch

    from custom.inference.torch_backend import TorchBackend
    from custom.memory import keep_freed_memory
    from custom.networks import MCPMedSAM, start_network

    if device is None:
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        found = f"{device!r} ({str(error)[:80]})"
        raise InputError("arguments", "device", found, "cpu, or cuda where there is a GPU") from None
    if place.type == "cpu":
        keep_freed_memory()
    network = MCPMedSAM().eval()
    towers = start_network(network, checkpoint, clip)
    return TorchBackend(network.to(place), towers, bfloat16=bfloat16)


def _start_openvino(folder: str, precision: str | None) -> Backend:
    from custom.inference.openvino_backend import OpenVINOBackend

    return OpenVINOBackend(folder, precision)
