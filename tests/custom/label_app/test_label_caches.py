import os
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from custom.errors import InputError
from custom.label_app.conf import Conf
from custom.label_app.embedding_cache import ANSWERS, CachedBackend
from custom.label_app.image_cache import ImageCache
from custom.label_app.predictor import Predictor


def frames(*values):
    return np.stack([np.full((3, 256, 256), value, np.float32) for value in values])


@pytest.mark.parametrize(
    ("asked", "encoded"),
    [
        ([1, 1, 1], 1),
        ([1, 2, 1, 2], 2),
        ([1, 2, 3, 1], 4),  # 1 had to go
        ([1, 2, 1, 3, 1, 2], 4),  # 2 had to go: 1 was used later
    ],
)
def test_embeddings_least_recently_used_goes_first(make_backend, asked, encoded):
    cache = CachedBackend(make_backend(), capacity=2)
    for value in asked:
        (embedding,) = cache.encode(frames(value))
        assert (embedding.value == value).all() and len(cache) <= 2
    assert cache.encoded == len(cache.backend.encoded) == encoded


def test_embeddings_of_a_batch_in_order(make_backend):
    cache = CachedBackend(make_backend(), capacity=8)
    cache.encode(frames(2))
    assert [embedding.value[0, 0, 0] for embedding in cache.encode(frames(1, 2, 3))] == [1, 2, 3]
    assert cache.encoded == 3


def test_the_same_boxes_are_decoded_once(make_backend):
    cache = CachedBackend(make_backend(), capacity=1)
    one, other = cache.encode(frames(1, 2))  # their embeddings go, answers are known by the image
    crops, boxes = np.zeros((1, 3, 64, 64), np.float32), np.array([[10, 10, 90, 90]], np.float32)
    first = cache.decode(one, boxes, 1, crops)
    assert cache.decode(one, boxes.copy(), 1, crops.copy()) is first
    for asked in (
        (other, boxes, 1, crops),
        (one, boxes + 1, 1, crops),
        (one, boxes, 2, crops),
        (one, boxes, 1, crops + 1),
    ):
        assert cache.decode(*asked) is not first
    assert len(cache.backend.decoded) == 5
    for n in range(ANSWERS):
        cache.decode(one, boxes + n / 9, 7, crops)
    assert cache.decode(one, boxes, 1, crops) is not first


@pytest.fixture
def volumes(tmp_path):
    paths = []
    for n in range(4):
        array = np.random.default_rng(n).integers(0, 255, (10, 10, 10)).astype(np.uint8)
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{n}.nii.gz")
        paths.append(tmp_path / f"{n}.nii.gz")
    return paths


def test_images_within_their_bytes(volumes):
    cache = ImageCache(2500)
    first = cache.read(volumes[0], None)
    assert cache.read(volumes[0], None) is first and cache.read(volumes[0], "CT") is not first
    for path in volumes:
        cache.read(path, None)
        assert cache.size <= 2500
    assert cache.read(volumes[0], None) is not first
    assert ImageCache(10).read(volumes[0], None).array.shape == (10, 10, 10)


def test_a_changed_image_is_read_again(volumes):
    cache = ImageCache(10**6)
    before = cache.read(volumes[0], None)
    nib.save(nib.Nifti1Image(np.zeros((10, 10, 10), np.uint8), np.eye(4)), volumes[0])
    os.utime(volumes[0], (1, 1))
    assert not np.array_equal(cache.read(volumes[0], None).array, before.array)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"a\.txt: image: found a file named \*\.txt"):
        ImageCache(10).read(tmp_path / "a.txt", None)


@pytest.fixture
def predictor(make_backend, make_model):
    backend, conf = make_backend(), Conf(labels="liver")
    model = make_model(backend)
    model.told |= {"precision": "f32", "digest": "0"}
    return SimpleNamespace(
        backend=backend, model=model, predict=Predictor(SimpleNamespace(current=lambda: model), conf).predict
    )


def test_the_second_box_takes_only_the_decoder(predictor, volumes):
    for box in ([1, 1, 8, 8], [2, 2, 6, 7]):
        predictor.predict(volumes[0], {"box": box, "slice": 5, "modality": "MR"}, dimension=2)
    assert len(predictor.backend.encoded) == 1 and len(predictor.backend.decoded) == 2
    predictor.predict(volumes[0], {"box": [1, 1, 8, 8], "slice": 6, "modality": "MR"}, dimension=2)
    assert len(predictor.backend.encoded) == 2


def test_answer(predictor, volumes):
    request = {"boxes": [[1, 1, 8, 8], [2, 2, 6, 7]], "slice": 5, "modality": "mri", "label": "cyst"}
    told = predictor.predict(volumes[0], request, dimension=2).told
    assert told["label_names"] == {"cyst 1": 1, "cyst 2": 2} and told["slice"] == 5 and told["modality"] == "MR"
    assert [box["value"] for box in told["boxes"]] == [1, 2] and all("iou" in box for box in told["boxes"])
    assert told["warnings"] == [f"cyst {k}: declared MR, but it looks like US (84%)" for k in (1, 2)]
    assert set(told["latencies"]) == {"read", "encode", "decode", "resize"} and "image" not in told


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"box": [1, 1, 8, 8], "slice": 5, "modality": "Sonar"}, "modality: found 'Sonar'"),
        ({"box": [1, 1, 8, 8], "slice": 5, "modality": 3}, "modality: found 3"),
        ({"box": [1, 1, 8, 18], "slice": 5}, "inside the image"),
        ({"box": [8, 1, 1, 8], "slice": 5}, "x_min < x_max"),
    ],
)
def test_bad_requests(predictor, volumes, request_, told):
    with pytest.raises(InputError, match=told):
        predictor.predict(volumes[0], request_, dimension=2)


@pytest.mark.parametrize("modality", [None, "auto", ["auto", "CT"]])
def test_nobody_chose_a_modality(predictor, volumes, modality):
    told = predictor.predict(volumes[0], {"box": [1, 1, 8, 8], "slice": 5, "modality": modality}, dimension=2).told
    assert told["modality_source"] == "classifier"
