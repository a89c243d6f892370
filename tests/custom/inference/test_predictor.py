"""The predictor, with a stand-in for the network that segments what is bright."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Picture

from custom import Predictor, read_image
from custom.errors import InputError

PICTURE, VOLUME = np.zeros((20, 30), np.uint8), np.zeros((6, 20, 30), np.uint8)
PICTURE[4:9, 6:15] = VOLUME[1:4, 4:9, 6:15] = 200
BOX, BOX_3D = [3, 2, 18, 12], [3, 2, 1, 18, 12, 3]


@pytest.fixture
def backend(make_backend):
    return make_backend()


@pytest.fixture
def predictor(backend, make_model):
    return Predictor(network=make_model(backend))


def test_a_picture(predictor, tmp_path):
    predictor.set_image(PICTURE, modality="us")
    result = predictor.predict(BOX)
    np.testing.assert_array_equal(result.masks[0], PICTURE > 0)
    np.testing.assert_array_equal(result.labels, PICTURE > 0)
    assert len(result.masks) == 1 and result.iou.shape == (1,) and result.modality == "US"
    assert result.volumes is None and result.model == {"backend": "fake", "checkpoint": "fake.pt"}
    assert set(result.seconds) == {"read", "encode", "decode", "resize"}
    report = result.save(tmp_path / "out")
    assert report["files"] == ["array_mask.png", "array_overlay.png"]
    np.testing.assert_array_equal(np.asarray(Picture.open(tmp_path / "out" / "array_mask.png")), PICTURE > 0)


@pytest.mark.parametrize("source", ["path", "image"])
def test_masks_have_the_shape_of_the_file(predictor, tmp_path, source):
    """NIfTI: boxes in i, j, k, masks IxJxK, whatever the orientation."""
    affine = np.array([[0, 0, -2.0, 5], [1, 0, 0, 6], [0, -1, 0, 7], [0, 0, 0, 1]])
    array = VOLUME.transpose(2, 1, 0)
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "v.nii.gz")
    path = tmp_path / "v.nii.gz"
    predictor.set_image(path if source == "path" else read_image(path, modality="MR"))
    result = predictor.predict(BOX_3D)
    np.testing.assert_array_equal(result.masks[0], array > 0)
    np.testing.assert_array_equal(result.labels, array > 0)
    assert result.unit == "mL" and result.volumes[0] == pytest.approx((array > 0).sum() * 2 / 1000)


@pytest.mark.parametrize("axes", [np.diag([-1.0, -1, 2]), np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]])])
def test_boxes_on_slices(predictor, backend, tmp_path, axes):
    affine = np.eye(4)
    affine[:3, :3] = axes
    array = VOLUME.transpose(2, 1, 0)
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "v.nii.gz")
    predictor.set_image(tmp_path / "v.nii.gz", modality="MR")
    result = predictor.predict([BOX, BOX, [4, 3, 16, 11]], slice=[2, 3, 2], overlap="last", names=["a", "b", "c"])
    for k, mask in zip((2, 3, 2), result.masks, strict=True):
        expected = np.zeros(array.shape, bool)
        expected[:, :, k] = array[:, :, k] > 0
        np.testing.assert_array_equal(mask, expected)
    assert np.unique(result.labels[:, :, 2]).tolist() == [0, 3] and np.unique(result.labels[:, :, 3]).tolist() == [0, 2]
    assert len(backend.encoded) == 1  # the two slices are alike
    assert not result.labels[:, :, [0, 1, 4, 5]].any()
    report = result.save(tmp_path / "out")
    assert [(entry["name"], entry["slice"]) for entry in report["boxes"]] == [("a", 2), ("b", 3), ("c", 2)]
    assert Picture.open(tmp_path / "out" / "v_overlay.png").size[0] > 100
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "out" / "v_mask.nii.gz").dataobj), result.labels)


def test_a_slice_of_an_array(predictor):
    predictor.set_image(VOLUME)
    result = predictor.predict(BOX, slice=2)
    assert result.labels.shape == VOLUME.shape and result.labels.any(axis=(1, 2)).tolist() == [0, 0, 1, 0, 0, 0]
    np.testing.assert_array_equal(result.masks[0][2], VOLUME[2] > 0)


def test_a_second_prompt_takes_only_the_decoder(predictor, backend):
    predictor.set_image(PICTURE, modality="US")
    predictor.predict(BOX)
    predictor.predict([4, 3, 16, 11])
    assert len(backend.encoded) == 1 and len(backend.decoded) == 2


def test_the_boxes_of_an_npz(predictor, tmp_path):
    np.savez(tmp_path / "2D_US_1.npz", imgs=PICTURE, boxes=[BOX])
    predictor.set_image(tmp_path / "2D_US_1.npz")
    np.testing.assert_array_equal(predictor.predict().labels, PICTURE > 0)


def test_progress_of_a_volume(predictor):
    steps = []
    predictor.set_image(VOLUME)
    predictor.predict(BOX_3D, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("image", "prompt", "message"),
    [
        (None, {"boxes": BOX}, "Predictor: image: found no image; allowed: set_image before predict"),
        (PICTURE, {}, "array: boxes: found no boxes"),
        (PICTURE, {"boxes": [1, 2, 3]}, "boxes: found shape"),
        (PICTURE, {"boxes": BOX, "slice": 0}, "array: slice: found 0; allowed: no slice: the image is a picture"),
        (VOLUME, {"boxes": BOX}, "boxes: found 4 numbers per box for a volume; allowed: 6 .* or 4 with the slice"),
        (VOLUME, {"boxes": BOX, "slice": 6}, "slice: found .6.; allowed: 0 to 5"),
        (VOLUME, {"boxes": BOX, "slice": [1, 2]}, "slice: found .1, 2.; allowed: one whole number, or 1"),
        (VOLUME, {"boxes": BOX, "slice": 1.5}, "slice: found 1.5; allowed: one whole number"),
        (VOLUME, {"boxes": BOX_3D, "slice": 1}, "boxes: found 6 numbers per box for a picture"),
        (
            PICTURE,
            {"boxes": BOX, "names": ["a", "b"]},
            "names: found 2 names: a, b; allowed: a name for each of 1 boxes",
        ),
        (PICTURE, {"boxes": BOX, "overlap": "first"}, "overlap: found 'first'"),
        (PICTURE, {"boxes": BOX, "points": [[1, 2]]}, "arguments: points: found a prompt of this kind; allowed: boxes"),
        (PICTURE, {"boxes": BOX, "point_labels": [1]}, "arguments: point_labels: found"),
        (PICTURE, {"boxes": BOX, "masks": PICTURE}, "arguments: masks: found"),
    ],
)
def test_bad_prompts(predictor, backend, image, prompt, message):
    if image is not None:
        predictor.set_image(image)
    with pytest.raises(InputError, match=message):
        predictor.predict(**prompt)
    assert not backend.encoded
