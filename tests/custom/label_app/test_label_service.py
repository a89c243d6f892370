import json
import os
import tempfile
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from custom.errors import InputError
from custom.images.formats import nrrd
from custom.label_app import service as program
from custom.label_app.conf import Conf
from custom.label_app.image_cache import ImageCache
from custom.label_app.service import SegmentationService, answer


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
def make_service(make_backend, make_model):
    def make(*, clicks="points", **options):
        backend, conf = make_backend(**options), Conf(labels="liver", clicks=clicks)
        model = make_model(backend, precision="f32", digest="0")
        segment = SegmentationService(SimpleNamespace(current=lambda: model), conf).segment
        return SimpleNamespace(backend=backend, model=model, segment=segment)

    return make


@pytest.fixture
def service(make_service):
    return make_service()


def test_the_second_box_takes_only_the_decoder(service, volumes):
    for box in ([1, 1, 8, 8], [2, 2, 6, 7]):
        service.segment(volumes[0], {"box": box, "slice": 5, "modality": "MR"}, dimension=2)
    assert len(service.backend.encoded) == 1 and len(service.backend.decoded) == 2
    service.segment(volumes[0], {"box": [1, 1, 8, 8], "slice": 6, "modality": "MR"}, dimension=2)
    assert len(service.backend.encoded) == 2


def test_answer(service, volumes):
    request = {"boxes": [[1, 1, 8, 8], [2, 2, 6, 7]], "slice": 5, "modality": "mri", "label": "cyst"}
    report = answer(service.segment(volumes[0], request, dimension=2))
    assert report["label_names"] == {"cyst 1": 1, "cyst 2": 2} and report["slice"] == 5 and report["modality"] == "MR"
    assert [box["value"] for box in report["boxes"]] == [1, 2] and all("iou" in box for box in report["boxes"])
    contradicted = "declared MR, but it looks like US (84%)"
    low = "predicted IoU 0.40: look at this mask"
    assert report["warnings"] == [f"cyst 1: {contradicted}", f"cyst 2: {low}; {contradicted}"]
    assert set(report["latencies"]) == {"read", "encode", "decode", "resize"} and "image" not in report


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"box": [1, 1, 8, 8], "slice": 5, "modality": "Sonar"}, "modality: found 'Sonar'"),
        ({"box": [1, 1, 8, 8], "slice": 5, "modality": 3}, "modality: found 3"),
        ({"box": [1, 1, 8, 18], "slice": 5}, "inside the image"),
        ({"box": [8, 1, 1, 8], "slice": 5}, "x_min < x_max"),
    ],
)
def test_bad_requests(service, volumes, request_, message):
    with pytest.raises(InputError, match=message):
        service.segment(volumes[0], request_, dimension=2)


@pytest.mark.parametrize("modality", [None, "auto", ["auto", "CT"]])
def test_nobody_chose_a_modality(service, volumes, modality):
    report = answer(service.segment(volumes[0], {"box": [1, 1, 8, 8], "slice": 5, "modality": modality}, dimension=2))
    assert report["modality_source"] == "classifier"


@pytest.mark.parametrize("ending", [None, ".nii.gz", ".nii", ".nrrd", ".mha"])
def test_masks_in_the_form_a_client_asks_for(service, volumes, tmp_path, monkeypatch, ending):
    sitk = pytest.importorskip("SimpleITK")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    request = {"box": [1, 1, 8, 8], "slice": 5, "result_extension": ending}
    result = service.segment(volumes[0], request, dimension=2)
    path = program.write_mask_file(result, request)
    assert path.name.endswith(ending or ".nii.gz")
    found, source = sitk.ReadImage(str(path)), sitk.ReadImage(str(volumes[0]))
    assert found.GetSize() == source.GetSize()
    for index in ((0, 0, 0), (9, 0, 0), (0, 9, 9)):
        places = [image.TransformIndexToPhysicalPoint(index) for image in (found, source)]
        np.testing.assert_allclose(*places, atol=1e-5)
    array = sitk.GetArrayFromImage(found).T
    np.testing.assert_array_equal(array, result.labels)
    assert array[:, :, 5].any() and not np.delete(array, 5, axis=2).any()


@pytest.mark.parametrize("ending", [".png", "../x.nii.gz", ".dcm"])
def test_endings_that_cannot_hold_the_mask(service, volumes, ending):
    with pytest.raises(InputError, match="request: result_extension: found"):
        service.segment(volumes[0], {"box": [1, 1, 8, 8], "slice": 5, "result_extension": ending}, dimension=2)
    assert not service.backend.encoded


def test_a_failed_write_leaves_no_file(service, volumes, tmp_path, monkeypatch):
    """A server would fill its disk with them over weeks."""

    def full(*_):
        raise OSError(28, "No space left on device")

    result = service.segment(volumes[0], {"box": [1, 1, 8, 8], "slice": 5}, dimension=2)
    monkeypatch.setattr(nrrd, "write_mask", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with pytest.raises(OSError, match="No space"):
        program.write_mask_file(result, {"result_extension": ".nrrd"})
    assert list((tmp_path / "temporary").iterdir()) == []


BOXED = {"roi": [1, 8, 1, 8, 2, 7], "modality": "MR"}


@pytest.mark.parametrize(("dimension", "encoded"), [(2, 1), (3, 6)])
def test_clicks_correct_without_encoding_again(service, volumes, dimension, encoded):
    before = service.segment(volumes[0], BOXED | {"slice": 5}, dimension=dimension)
    assert len(service.backend.encoded) == encoded
    decoder = service.backend.answered
    clicks = {"foreground": [[4, 4, 5]], "background": [[7, 7, 5]], "slice": 5}
    after = service.segment(volumes[0], BOXED | clicks, dimension=dimension)
    assert len(service.backend.encoded) == encoded
    assert dimension == 3 or service.backend.answered == decoder  # the box was decoded before
    assert after.boxes.tolist() == before.boxes.tolist() and (after.labels != before.labels)[:, :, 5].any()
    assert after.labels[4, 4, 5] == 1 and after.labels[7, 7, 5] == 0
    assert service.segment(volumes[0], BOXED | {"slice": 5}, dimension=dimension).labels.tolist() == (
        before.labels.tolist()
    )


def test_clicks_alone_on_a_picture(service, make_service, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    request = {"foreground": [[30, 20], [35, 22]], "background": [[5, 5]], "modality": "US"}
    result = service.segment(tmp_path / "a.png", request, dimension=2)
    assert np.isnan(result.boxes).all() and result.labels.shape == (40, 60) and result.labels[20, 30] == 1
    report = answer(result)
    assert report["boxes"][0]["box"] is None and json.dumps(report, allow_nan=False)
    request = {"foreground": [[20, 10], [50, 30]], "modality": "US"}
    for other in (make_service(clicks="corners"), make_service(takes_clicks=False)):
        assert other.segment(tmp_path / "a.png", request, dimension=2).boxes.tolist() == [[20, 10, 50, 30]]


def test_weights_without_clicks_see_the_box_alone(make_service, volumes):
    service, clicks = make_service(takes_clicks=False), {"foreground": [[4, 4, 5]], "background": [[99, 7, 5]]}
    results = [service.segment(volumes[0], BOXED | more, dimension=3).labels for more in ({}, clicks)]
    np.testing.assert_array_equal(*results)
    with pytest.raises(InputError, match="foreground: found 1 clicks; .*two clicks, opposite corners"):
        service.segment(volumes[0], clicks, dimension=3)


def test_a_box_alone_is_checked_before_the_network_starts(service, volumes, monkeypatch):
    monkeypatch.setattr(service.model, "start", lambda: pytest.fail("started"))
    with pytest.raises(InputError, match="roi"):
        service.segment(volumes[0], {"roi": [1]}, dimension=3)
