"""What MONAI's evaluator is given in ``bundle/configs/inference.json``: npz files in, ``segs`` out."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import Dataset
from monai.engines import PrepareBatch
from monai.inferers import Inferer
from monai.transforms import MapTransform

from custom.errors import InputError
from custom.inference.canvas import check_overlap
from custom.inference.npz import write_segs
from custom.inference.segmenter import BoxSegmenter
from custom.inference.sources import read_input
from custom.inference.torch_backend import TorchBackend
from custom.networks import FrozenCLIP, MCPMedSAM


class BoxInferer(Inferer):
    """Segment one case as ``BoxSegmenter`` does.

    Args:
        clip: the frozen CLIP for the sparse content prompt, where the network uses it.
        bfloat16: compute in bfloat16, whatever surrounds the call.
        overlap: what a pixel in several masks becomes: "logit", "smaller" or "last".
        follow: follow an object through the slices of a volume.

    Raises:
        InputError: there is no such rule for overlaps.
    """

    def __init__(
        self,
        *,
        clip: FrozenCLIP | None = None,
        bfloat16: bool = False,
        overlap: str = "logit",
        follow: bool = True,
    ) -> None:
        super().__init__()
        self.clip, self.bfloat16, self.overlap, self.follow = clip, bfloat16, check_overlap(overlap), follow

    def __call__(
        self,
        inputs: torch.Tensor,
        network: MCPMedSAM,
        boxes: torch.Tensor,
        modality: list[str] | None = None,
    ) -> torch.Tensor:
        """Segment a batch of one case: 1xHxW[x3] or 1xDxHxW uint8, boxes 1xNx4 or 1xNx6 -> label map of its size.

        ``modality`` holds one name, empty for unknown.
        """
        backend = TorchBackend(network, self.clip, bfloat16=self.bfloat16)
        segmenter = BoxSegmenter(backend, overlap=self.overlap)
        image, given, name = inputs[0].cpu().numpy(), boxes[0].cpu().numpy(), (modality or [""])[0] or None
        if given.shape[-1] == 6:
            result = segmenter.segment_volume(image, given, name, follow=self.follow)
        else:
            result = segmenter.segment_picture(image, given, name)
        return torch.from_numpy(result.labels.astype(np.int32)).unsqueeze(0)


class NpzDataset(Dataset):
    """The cases of a folder of npz files, in the order of their names, read one at a time.

    Under torchrun each process has its share: that of rank r of n is every n-th case from the r-th.

    An item is "image" (HxW, HxWx3 or DxHxW uint8), "boxes" (Nx4 or Nx6), "case" and "modality", which is "" where the
    file's name tells none, since None cannot be collated.

    Raises:
        InputError: no such folder, or no npz file in it.
    """

    def __init__(self, dataset_dir: str | PathLike[str]) -> None:
        files = sorted(Path(dataset_dir).glob("*.npz"))
        if not files:
            raise InputError(dataset_dir, "dataset_dir", "no npz file", "a folder of {2D|3D}_{Modality}_*.npz files")
        rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        super().__init__(files[rank::world], transform=_read_item)


class PrepareCase(PrepareBatch):
    """Give MONAI's evaluator a case as ``BoxInferer`` wants it; the backend moves to the device what it needs there."""

    def __call__(
        self, batchdata: Mapping[str, object], device: object = None, non_blocking: bool = False, **_: object
    ) -> tuple[torch.Tensor, None, tuple, dict[str, object]]:
        """Return (image, no target, (), boxes and modality)."""
        return batchdata["image"], None, (), {"boxes": batchdata["boxes"], "modality": batchdata["modality"]}


class SaveSegsd(MapTransform):
    """Write a label map as ``<case>.npz`` with ``segs``, whole or not at all.

    Args:
        keys: label map, the image's size.
        output_dir: folder, made if missing.
    """

    def __init__(self, keys: KeysCollection, *, output_dir: str | PathLike[str]) -> None:
        super().__init__(keys)
        self.output_dir = Path(output_dir)

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        """Write the file."""
        item = dict(data)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        for key in self.key_iterator(item):
            write_segs(self.output_dir / f"{item['case']}.npz", np.asarray(item[key].cpu()))
        return item


def _read_item(path: Path) -> dict[str, object]:
    image = read_input(path)
    if image.boxes is None:
        raise InputError(path, "boxes", "no such array", "Nx4 for a picture, Nx6 for a volume")
    return {
        "image": torch.from_numpy(image.array),
        "boxes": torch.from_numpy(image.checked_boxes(image.boxes)),
        "modality": image.modality or "",
        "case": path.stem,
    }
