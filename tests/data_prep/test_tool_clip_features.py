import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader
from monai.transforms import Compose

from custom.bundle_folder import CONFIGS
from custom.data.clip_features import ClipFeatures
from custom.data.datasets import MaskDataset, SliceDataset
from custom.data.prepared import PreparedSet, load_dataset
from custom.engines import PromptPrepareBatch
from custom.errors import InputError
from custom.networks import clip as clip_module
from custom.networks import load_clip
from custom.transforms import (
    Boxd,
    CropBoxesd,
    LoadClipFeatured,
    LoadSliced,
    PickMasksd,
)
from data_prep.clip_features import cache_clip_features


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A colour picture with three masks, and a volume whose slices hold different ones."""
    root = tmp_path_factory.mktemp("small")
    (root / "arrays").mkdir()
    rng, parts = np.random.default_rng(0), []
    for case, modality, shape, channels in (("p", "US", (1, 40, 60), 3), ("v", "CT", (3, 30, 20), 1)):
        image = rng.integers(0, 256, shape if channels == 1 else (*shape, 3), np.uint8)
        label = np.zeros(shape, np.uint8)
        label[:, 2:9, 3:12], label[-1, 12:20, 1:9], label[-1, 20:25, 10:18] = 2, 1, 3
        np.save(root / "arrays" / f"{case}.image.npy", image)
        np.save(root / "arrays" / f"{case}.label.npy", label)
        record = {"case": case, "modality": modality, "dataset": "Set", "dimension": 2 if shape[0] == 1 else 3}
        record |= {kind: f"arrays/{case}.{kind}.npy" for kind in ("image", "label")}
        record |= {"shape": shape, "channels": channels, "spacing": None, "labels": dict.fromkeys("123", "square")}
        record |= {"slices": [[z, [1, 2, 3] if z == shape[0] - 1 else [2]] for z in range(shape[0])]}
        parts.append([record])
    index = {"format": "mcp-medsam-prepared", "version": 1, "name": "x", "modalities": ["CT", "US"]}
    (root / "dataset.json").write_text(json.dumps(index | dict(zip(("training", "validation"), parts, strict=True))))
    return root


@pytest.fixture(scope="module")
def cached(small, tiny_clip_folder) -> PreparedSet:
    report = cache_clip_features(small, str(tiny_clip_folder), batch_size=3, workers=0, device="cpu", progress=False)
    assert (report.masks, report.width) == (8, 16) and "8 features of" in str(report)
    return load_dataset(small)


def clip_of_tight_crops(prepared, clip):
    """Every mask's key and feature, computed one by one."""
    crops = [Boxd("label"), CropBoxesd("image", crops={"clip_crop": 224})]
    dataset = MaskDataset(
        prepared.training + prepared.validation, Compose([LoadSliced(["image", "label"]), PickMasksd("label"), *crops])
    )
    for item in (dataset[i] for i in range(len(dataset))):
        yield (item["case"], item["slice"], *item["label_ids"]), clip.encode_image(item["clip_crop"])


def test_every_mask_has_the_feature_of_its_tight_crop(cached, tiny_clip_folder):
    features, clip = ClipFeatures(cached.root), load_clip(str(tiny_clip_folder))
    assert features.clip == str(tiny_clip_folder) and features.width == 16
    expected = dict(clip_of_tight_crops(cached, clip))
    found = {key: features(key[0], key[1], [key[2]]) for key in expected}
    assert len(found) == 8 and len({array.tobytes() for array in found.values()}) == 8
    for key, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected[key], atol=1e-5)
    both = features("p", 0, [3, 1])
    np.testing.assert_array_equal(both, np.concatenate([found["p", 0, 3], found["p", 0, 1]]))


@pytest.mark.parametrize("masks", [("p", 0, [9]), ("v", 7, [2]), ("v", 0, [2, 1]), ("none", 0, [1])])
def test_a_mask_without_feature(cached, masks):
    with pytest.raises(InputError, match="no feature of .*; allowed: run `python -m data_prep clip-features`"):
        ClipFeatures(cached.root)(*masks)


def test_training_batch(cached, tiny_clip_folder):
    """Flips and box shifts do not change the feature, and CLIP itself is not used."""

    class Refuses(torch.nn.Module):
        def encode_image(self, crop):
            raise AssertionError("CLIP ran")

    parser = ConfigParser()
    parser.read_config(CONFIGS / "train.json")
    parser.update(
        {"dataset_dir": str(cached.root), "clip": str(tiny_clip_folder), "cached_clip": True, "flip_prob": 1.0}
    )
    transform = parser.get_parsed_content("train#preprocessing")
    for workers in (0, 1):
        loader = DataLoader(MaskDataset(cached.validation, transform), batch_size=5, num_workers=workers)
        (batch,) = loader
        for clip in (None, Refuses()):
            assert "clip_crop" not in batch
            ((prompts,), _) = PromptPrepareBatch(clip=clip)(batch, "cpu")[2:]
            assert prompts.image_features.shape == (5, 1, 16)
            reader = ClipFeatures(cached.root)
            masks = [(0, [2]), (1, [2]), (2, [1]), (2, [2]), (2, [3])]
            expected = np.stack([reader("v", z, ids) for z, ids in masks])
            np.testing.assert_array_equal(prompts.image_features, expected)


def test_all_masks_of_a_slice(cached, tiny_clip_folder):
    transform = LoadClipFeatured(cached.root, clip=str(tiny_clip_folder))
    (item,) = SliceDataset(cached.training, transform)
    np.testing.assert_array_equal(item["image_feature"], ClipFeatures(cached.root)("p", 0, [1, 2, 3]))


def test_features_of_another_clip(cached):
    with pytest.raises(InputError, match="pubmed-clip.*run `python -m data_prep clip-features` with that --clip"):
        LoadClipFeatured(cached.root)


def test_set_prepared_anew(cached, tmp_path, tiny_clip_folder):
    for name in ("dataset.json", "clip_features.json"):
        (tmp_path / name).write_bytes((cached.root / name).read_bytes())
    (tmp_path / "dataset.json").write_text((tmp_path / "dataset.json").read_text().replace("Set", "Other"))
    with pytest.raises(InputError, match=r"features of another dataset\.json; allowed: run `python -m data_prep"):
        LoadClipFeatured(tmp_path, clip=str(tiny_clip_folder))


OTHER_FORMAT = {"format": "x", "version": 1, "dataset": "", "clip": "", "width": 1, "cases": {}}


@pytest.mark.parametrize("text", [None, "[]", "{}", json.dumps(OTHER_FORMAT)])
def test_no_features(tmp_path, text):
    if text:
        (tmp_path / "clip_features.json").write_text(text)
    with pytest.raises(InputError, match=r"clip_features\.json: .*run `python -m data_prep clip-features`"):
        ClipFeatures(tmp_path)


@pytest.mark.parametrize("name", ["auto", "./missing", "none"])
def test_no_clip(small, monkeypatch, tmp_path, name):
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(clip_module, "_hub_answers", lambda endpoint: False)
    with pytest.raises(InputError, match="clip: .*a local folder .*--clip /path/to/folder"):
        cache_clip_features(small, name, progress=False)
