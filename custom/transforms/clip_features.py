"""CLIP's image features, loaded from files."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping

import torch
from monai.transforms import Transform

from custom.data.clip_features import ClipFeatures
from custom.errors import InputError
from custom.networks.clip import PUBMED_CLIP


class LoadClipFeatured(Transform):
    """Add the CLIP features of an item's masks: "image_feature", NxF float32.

    They belong to the tight, unshifted and unflipped boxes (see ``custom.data.clip_features``), so that
    ``PromptPrepareBatch`` need not run CLIP and no "clip_crop" is needed. For training only.

    Args:
        dataset_dir: folder of the prepared set with its features.
        clip: name of the CLIP the network is trained with, as ``load_clip`` takes it.
        feature_key: where the features go.

    Raises:
        InputError: there are no features, or they belong to another ``dataset.json`` or another CLIP.
    """

    def __init__(
        self, dataset_dir: str | os.PathLike[str], *, clip: str = "auto", feature_key: str = "image_feature"
    ) -> None:
        self.features, self.feature_key = ClipFeatures(dataset_dir), feature_key
        if self.features.clip != clip_name(clip):
            allowed = f"features of {clip_name(clip)}: run `python -m data_prep clip-features` with that --clip"
            raise InputError(dataset_dir, "clip features", f"those of {self.features.clip}", allowed)

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        """Add the features of the masks in "label_ids" on slice "slice" of "case"."""
        found = self.features(data["case"], int(data["slice"]), data["label_ids"])
        return {**data, self.feature_key: torch.from_numpy(found)}


def clip_name(name: str) -> str:
    """Return the name under which features are stored: PubMedCLIP's for "auto", else the name itself."""
    return PUBMED_CLIP if name == "auto" else name
