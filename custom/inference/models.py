"""Choose weights and backend; the backend is imported and started when it is needed."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from custom.bundle_folder import BUNDLE
from custom.errors import InputError
from custom.export.folder import read_description
from custom.inference.automatic import exported, sees_gpu
from custom.inference.backend import Backend
from custom.lite_medsam import LITE_MEDSAM, checkpoint_path

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "torch", "openvino")
PRECISIONS = ("f32", "bf16")
DEFAULT_CHECKPOINT = BUNDLE / "models" / "model.pt"
Facts = Mapping[str, str]


class Model:
    """A network that is started for the first image that needs it; thread-safe.

    Args:
        facts: what the results report about it: backend, precision, checkpoint, digest and whatever else matters; or
            a function that returns these when first needed.
        make: starts the backend.
    """

    def __init__(self, *, facts: Facts | Callable[[], Facts], make: Callable[[], Backend]) -> None:
        self._facts = cache(lambda: dict(facts() if callable(facts) else facts))
        self._make, self._lock = cache(make), threading.RLock()

    @property
    def facts(self) -> dict[str, str]:
        """What the results report about it; this may take half a minute at the first use of a checkpoint.

        Raises:
            InputError: the network is not available.
        """
        with self._lock:
            return self._facts()

    def start(self) -> Backend:
        """Return the backend, the same every time.

        Raises:
            InputError: the network is not available.
        """
        with self._lock:
            return self._make()


def choose_model(
    *,
    checkpoint: str | None = None,
    backend: str = "auto",
    model: str | None = None,
    precision: str | None = None,
    device: str | None = None,
    clip: str = "auto",
) -> Model:
    """Choose what runs the network. Options are checked at once; the rest is done at the first use.

    "auto" uses a GPU if there is one; else OpenVINO, for which a checkpoint is exported at its first use into a cache
    (``custom.inference.automatic``); else, with a warning that gives the reason, PyTorch on the processor.

    Args:
        checkpoint: weights; "lite_medsam" for LiteMedSAM's; by default the bundle's, or LiteMedSAM's if it has none.
        backend: "auto", "torch" or "openvino".
        model: folder of an exported network in place of a checkpoint; OpenVINO runs it.
        precision: "f32" or "bf16". By default PyTorch computes in float32, OpenVINO in bfloat16 if the processor
            can, and a ``model`` in the precision it was exported for.
        device: where PyTorch computes, e.g. "cpu" or "cuda:1"; by default the GPU if there is one, under torchrun
            that of ``LOCAL_RANK``.
        clip: the CLIP the weights were trained with: "auto", "none", a hub name or a local folder.

    Raises:
        InputError: no such checkpoint, folder, backend or precision, or options that contradict each other.
    """
    if backend not in BACKENDS:
        raise InputError("arguments", "backend", repr(backend), ", ".join(BACKENDS))
    if device is not None and (backend == "openvino" or model is not None):
        raise InputError("arguments", "device", repr(device), "no device with OpenVINO, which runs on the processor")
    if model is not None:
        return _exported_model(str(model), backend=backend, checkpoint=checkpoint, precision=precision, clip=clip)
    if precision not in (None, *PRECISIONS):
        raise InputError("arguments", "precision", repr(precision), ", ".join(PRECISIONS))
    name = default_checkpoint() if checkpoint is None else str(checkpoint)
    path = checkpoint_path(name)

    def choose() -> Model:
        facts = {"checkpoint": name, "digest": hashlib.sha256(path.read_bytes()).hexdigest()[:16]}
        if backend == "openvino" or (backend == "auto" and device is None and not sees_gpu()):
            try:
                folder = exported(path, facts["digest"])
                left_out = read_description(folder).left_out
                if left_out and clip != "none":
                    found = f"weights that use a CLIP ({', '.join(left_out)}), which is not exported"
                    raise InputError(name, "clip", found, "the backend torch, or clip none")
                return _openvino(folder, precision or "bf16", facts)
            except InputError as error:
                if backend == "openvino":
                    raise
                logger.warning("PyTorch runs the network, more slowly than OpenVINO would: %s", error)
        wanted = precision or "f32"
        facts = {"backend": "torch", "precision": wanted, **facts, "clip": str(clip)}
        return Model(facts=facts, make=lambda: _start_torch(path, str(clip), wanted == "bf16", device))

    return _later(choose)


def default_checkpoint() -> str:
    """Return the bundle's weights, or "lite_medsam" if it has none."""
    return str(DEFAULT_CHECKPOINT) if DEFAULT_CHECKPOINT.is_file() else LITE_MEDSAM


def _later(choose: Callable[[], Model]) -> Model:
    chosen = cache(choose)
    return Model(facts=lambda: chosen().facts, make=lambda: chosen().start())


def _exported_model(folder: str, *, backend: str, checkpoint: str | None, precision: str | None, clip: str) -> Model:
    none = "none with the folder of an exported network (model)"
    if backend == "torch":
        raise InputError("arguments", "backend", repr(backend), "auto, openvino for an exported network (model)")
    if checkpoint is not None:
        raise InputError("arguments", "checkpoint", repr(checkpoint), none)
    if clip not in ("auto", "none"):
        raise InputError("arguments", "clip", repr(clip), none)
    description = read_description(folder)
    wanted = description.checked_precision(precision, folder)
    facts = {"checkpoint": description.checkpoint, "digest": description.digest}
    return _later(lambda: _openvino(Path(folder), wanted, facts))


def _start_torch(path: Path, clip: str, bfloat16: bool, device: str | None) -> Backend:
    import torch

    from custom.checkpoints import start_network
    from custom.inference.torch_backend import TorchBackend
    from custom.memory import keep_freed_memory
    from custom.networks import build_mcp_medsam

    if device is None:
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        found = f"{device!r} ({str(error)[:80]})"
        raise InputError("arguments", "device", found, "cpu, or cuda if there is a GPU") from None
    if place.type == "cpu":
        keep_freed_memory()
    network = build_mcp_medsam()
    towers = start_network(network, path, clip)
    return TorchBackend(network.to(place), towers, bfloat16=bfloat16)


def _openvino(folder: Path, precision: str, facts: Facts) -> Model:
    try:
        from custom.inference.openvino_backend import OpenVINOBackend, usable_precision
    except ImportError as error:
        raise InputError("OpenVINO", "package", error, "`pip install openvino`") from None
    facts = {"backend": "openvino", "precision": usable_precision(precision), **facts}
    return Model(facts=facts, make=lambda: OpenVINOBackend(folder, precision=precision))
