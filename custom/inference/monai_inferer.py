"""The parts of ``bundle/configs/inference.json`` for MONAI's evaluator: a folder of images in, masks out."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from functools import lru_cache
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import Dataset
from monai.engines import PrepareBatch
from monai.inferers import Inferer
from monai.transforms import MapTransform

from custom.atomic_write import files_below
from custom.errors import InputError
from custom.images.formats import kinds, mask_format
from custom.images.image import Image
from custom.images.reading import read_image
from custom.inference.cases import Case, list_cases
from custom.inference.label_map import check_overlap
from custom.inference.models import Model, choose_model
from custom.inference.openvino_backend import usable_precision
from custom.inference.predictor import Predictor
from custom.inference.prompt_check import check_prompt
from custom.inference.torch_backend import TorchBackend
from custom.networks import FrozenCLIP, MCPMedSAM

_EVALUATORS = "torch"  # the network of MONAI's evaluator, as the configuration has changed it


class BoxInferer(Inferer):
    """Segment one case like ``custom.Predictor``.

    Args:
        backend: "torch" runs the evaluator's own network; "openvino" or "auto" run ``checkpoint`` as
            ``custom.Predictor`` does, whatever network the evaluator holds.
        checkpoint: weights for the other backends.
        clip: the frozen CLIP for the sparse content prompt, if the network uses it.
        bfloat16: compute in bfloat16, whatever the caller's precision; "auto": if the processor supports it.
        overlap: which mask gets a pixel that several cover: "logit", "smaller" or "last".
        follow: follow an object through the slices of a volume.

    Raises:
        InputError: an unknown rule for overlaps or an unknown backend.
    """

    def __init__(
        self,
        *,
        backend: str = _EVALUATORS,
        checkpoint: str | PathLike[str] | None = None,
        clip: FrozenCLIP | None = None,
        bfloat16: bool | str = "auto",
        overlap: str = "logit",
        follow: bool = True,
    ) -> None:
        super().__init__()
        if bfloat16 not in (True, False, "auto"):
            raise InputError("arguments", "bfloat16", repr(bfloat16), "True, False, auto")
        self.clip, self.bfloat16, self.overlap, self.follow = clip, bfloat16, check_overlap(overlap), follow
        self._model: Model | None = None
        if backend != _EVALUATORS:
            precision = {True: "bf16", False: "f32", "auto": None}[bfloat16]
            path = None if checkpoint is None else str(checkpoint)
            self._model = choose_model(checkpoint=path, backend=backend, precision=precision)

    def __call__(
        self,
        inputs: torch.Tensor,
        network: MCPMedSAM,
        boxes: torch.Tensor,
        modality: list[str] | None = None,
    ) -> torch.Tensor:
        """Segment a batch of one case: 1xHxW[x3] or 1xDxHxW[x3] uint8, boxes 1xNx4 or 1xNx6 -> label map of its size.

        The boxes are in pixels of the array; ``modality`` holds one name, empty for unknown.
        """
        array, given, name = inputs[0].cpu().numpy(), boxes[0].cpu().numpy(), (modality or [""])[0] or None
        kind = "volume" if given.shape[-1] == 6 else "picture"
        predictor = Predictor(network=self._model or self._of(network), embeddings=0)
        predictor.set_image(Image(path="array", format="array", array=array, kind=kind, modality=name))
        result = predictor.predict(given, overlap=self.overlap, follow=self.follow)
        return torch.from_numpy(result.labels.astype(np.int32)).unsqueeze(0)

    def _of(self, network: MCPMedSAM) -> Model:
        backend = TorchBackend(network, self.clip, bfloat16=self._computes_in_bfloat16(network))
        return Model(facts={"backend": "torch"}, make=lambda: backend)

    def _computes_in_bfloat16(self, network: MCPMedSAM) -> bool:
        if self.bfloat16 != "auto":
            return bool(self.bfloat16)
        if next(network.parameters()).is_cuda:
            return torch.cuda.is_bf16_supported()
        return usable_precision("bf16") == "bf16"


class BoxDataset(Dataset):
    """The images of a folder or list with their boxes, read one at a time.

    Under torchrun, rank r of n processes takes every n-th case from the r-th.

    An item is "image" (HxW, HxWx3, DxHxW or DxHxWx3 uint8), "boxes" (Nx4 or Nx6, in its pixels), "case" and "modality",
    which is "" if none is declared, since None cannot be collated.

    Args:
        dataset_dir: a folder of images of any format, or a CSV or JSON list; see ``custom.inference.cases``.
        boxes: what ``custom.segment --boxes`` takes, for instance a CSV or JSON list of the folder's images; None
            if the list or each file has its own (npz).

    Raises:
        InputError: no such folder, no image in it that can be segmented, or a list with clicks or masks.
    """

    def __init__(self, dataset_dir: str | PathLike[str], boxes: object = None) -> None:
        cases, _ = list_cases(str(dataset_dir), boxes=boxes)
        if Path(dataset_dir).is_dir() and not files_below(dataset_dir):
            raise InputError(dataset_dir, "dataset_dir", "an empty folder", f"a folder with images: {kinds()}")
        for case in cases:
            if case.clicks is not None:
                allowed = "boxes; custom.segment takes clicks and masks"
                raise InputError(dataset_dir, f"points of {case.name}", "clicks or a mask", allowed)
        rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        share = cases[rank::world]
        self._cases = {case.name: case for case in share}
        self._read = lru_cache(maxsize=1)(_read_case)
        super().__init__(share, transform=self._item)

    def image(self, name: str) -> Image:
        """Return the image of a case; the last one is cached."""
        return self._read(self._cases[name])[0]

    def _item(self, case: Case) -> dict[str, object]:
        image, boxes = self._read(case)
        return {
            "image": torch.tensor(image.array),  # a copy: the original may be read-only
            "boxes": torch.from_numpy(boxes),
            "modality": image.modality or "",
            "case": case.name,
        }


class PrepareCase(PrepareBatch):
    """Give MONAI's evaluator a case for ``BoxInferer``; the backend moves to the device what it needs."""

    def __call__(
        self, batchdata: Mapping[str, object], device: object = None, non_blocking: bool = False, **_: object
    ) -> tuple[torch.Tensor, None, tuple, dict[str, object]]:
        """Return (image, no target, (), boxes and modality)."""
        return batchdata["image"], None, (), {"boxes": batchdata["boxes"], "modality": batchdata["modality"]}


class SaveMasksd(MapTransform):
    """Write a label map in the format and place of its image, whole or not at all.

    The file is ``<case>_mask.*``, that of an npz ``<case>.npz``.

    Args:
        keys: label map, of the size of the image's array.
        output_dir: folder, created if missing.
        dataset: the data set of the images.
        format: format of the masks: nifti, nrrd, mha, mgz, png, tiff, npz, seg or rtstruct; None for the image's own.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        output_dir: str | PathLike[str],
        dataset: BoxDataset,
        format: str | None = None,
    ) -> None:
        super().__init__(keys)
        self.output_dir, self.dataset, self.format = Path(output_dir), dataset, format

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        """Write the file."""
        item = dict(data)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        image = self.dataset.image(str(item["case"]))
        module, _ = mask_format(image, self.format)
        suffix = "" if image.format == module.MASK == "npz" else "_mask"
        for key in self.key_iterator(item):
            labels = np.asarray(item[key].cpu())
            names = {k: f"box {k}" for k in range(1, max(int(labels.max()), 1) + 1)}
            small = labels.astype(np.uint8 if labels.max() <= np.iinfo(np.uint8).max else np.uint16)
            path = self.output_dir / f"{item['case']}{suffix}{module.mask_ending(image)}"
            module.write_mask(path, small, names, image)
        return item


def _read_case(case: Case) -> tuple[Image, np.ndarray]:
    """Return an image with the checked boxes in the pixels of its array."""
    image = read_image(case.path, modality=case.modality)
    boxes = None if case.boxes is None else case.boxes.resolve(image)
    checked = check_prompt(image, None if boxes is None else boxes.values, boxes and boxes.slices)
    return image, image.boxes_to_array(checked.in_volume)
