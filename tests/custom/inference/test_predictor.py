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
        (PICTURE, {"boxes": BOX, "point_labels": [1]}, "point_labels: found labels; allowed: no labels without points"),
        (PICTURE, {"points": [[30, 2]]}, r"points.0..0.: found .30.0, 2.0.; allowed: inside the image: x 0 to 29, y"),
        (PICTURE, {"points": [[1, -1]]}, r"points.0..0.: found .1.0, -1.0.; allowed: inside"),
        (PICTURE, {"points": [[1, np.nan]]}, r"points.0..0.: found .1.0, nan.; allowed: x y in finite numbers"),
        (PICTURE, {"points": [[1, 2, 3]]}, r"points.0..0.: found .1.0, 2.0, 3.0.; allowed: x y"),
        (PICTURE, {"points": [[1, 2], []]}, r"points.0..1.: found \[\]; allowed: x y"),
        (PICTURE, {"points": "1 2"}, "points: found '1 2'; allowed: lists of clicks x y"),
        (PICTURE, {"points": [[1, None]]}, "points: found"),
        (PICTURE, {"points": []}, "points: found no object"),
        (PICTURE, {"points": [[]]}, r"points.0.: found no click, no box and no mask"),
        (PICTURE, {"points": [[1, 2]], "point_labels": [1, 0]}, r"point_labels.0.: found 2 labels; allowed: 1"),
        (PICTURE, {"points": [[1, 2]], "point_labels": [2]}, r"point_labels.0..0.: found 2; allowed: 1 on the object"),
        (PICTURE, {"points": [[1, 2]], "point_labels": [True]}, r"point_labels.0..0.: found True"),
        (PICTURE, {"points": [[1, 2]], "point_labels": [np.nan]}, r"point_labels.0..0.: found nan"),
        (PICTURE, {"points": [[1, 2]], "point_labels": ["1"]}, r"point_labels.0..0.: found '1'"),
        (PICTURE, {"points": [[1, 2]], "point_labels": [None]}, r"point_labels: found \[None\]; allowed: 1"),
        (
            PICTURE,
            {"points": [[1, 2]], "point_labels": [[1], [0]]},
            "point_labels: found for 2 objects; allowed: for 1",
        ),
        (PICTURE, {"boxes": [BOX] * 2, "points": [[1, 2]]}, "points: found 1 objects; allowed: 2, one for each box"),
        (PICTURE, {"points": [[1, 2]], "masks": [PICTURE] * 2}, "masks: found 2 objects; allowed: 1, as many as"),
        (PICTURE, {"masks": [PICTURE[:9]]}, r"mask: found shape \(9, 30\); allowed: that of the image, \(20, 30\)"),
        (PICTURE, {"masks": ["a"]}, r"masks.0.: found 'a'; allowed: an array of numbers"),
        (PICTURE, {"masks": []}, "masks: found no object"),
        (VOLUME, {"points": [[1, 2, 3]]}, "boxes: found clicks without a box in a volume"),
        (VOLUME, {"boxes": BOX_3D, "points": [[1, 2]]}, r"points.0..0.: found .1.0, 2.0.; allowed: x y z"),
        (VOLUME, {"boxes": BOX_3D, "points": [[1, 2, 6]]}, r"points.0..0.: .*; allowed: inside the image: .*z 0 to 5"),
        (VOLUME, {"boxes": BOX_3D, "masks": VOLUME}, "masks: found masks for a volume; allowed: masks for a picture"),
    ],
)
def test_bad_prompts(predictor, backend, image, prompt, message):
    if image is not None:
        predictor.set_image(image)
    with pytest.raises(InputError, match=message):
        predictor.predict(**prompt)
    assert not backend.encoded


@pytest.mark.parametrize(
    ("prompt", "field"),
    [({"points": [[9, 6]]}, "points"), ({"boxes": BOX, "points": [[9, 6]]}, "points"), ({"masks": PICTURE}, "masks")],
)
def test_weights_without_clicks(make_backend, make_model, prompt, field):
    predictor = Predictor(network=make_model(make_backend(takes_clicks=False)))
    predictor.set_image(PICTURE)
    assert predictor.predict(BOX).masks[0].any()
    with pytest.raises(InputError, match=f"arguments: {field}: found clicks or masks; allowed: boxes, or weights that"):
        predictor.predict(**prompt)


@pytest.mark.parametrize("box", [None, BOX])
def test_clicks_at_once_and_one_after_another(predictor, backend, make_backend, make_model, box):
    """The mask after k clicks, from the cache and from a network that has seen nothing before."""
    clicks, labels = [[6, 4], [25, 15], [7, 5], [20, 17]], [1, 1, 0, 1]
    predictor.set_image(PICTURE, modality="US")
    seen = set()
    for k in range(1, 5):
        found = predictor.predict(box, points=clicks[:k], point_labels=labels[:k])
        fresh = Predictor(network=make_model(make_backend()), embeddings=0)
        fresh.set_image(PICTURE, modality="US")
        expected = fresh.predict(box, points=[clicks[:k]], point_labels=[labels[:k]])
        np.testing.assert_array_equal(found.masks[0], expected.masks[0])
        np.testing.assert_array_equal(found.iou, expected.iou)
        seen.add(found.masks[0].tobytes())
    assert len(seen) == 4 and len(backend.encoded) == 1
    assert backend.answered == 1 and len(backend.decoded) == 4 + 1  # the box, or the first click, is answered once


def test_every_click_runs_the_decoder_where_it_takes_clicks(make_backend, make_model):
    backend = make_backend(click_tokens=True)
    predictor = Predictor(network=make_model(backend))
    predictor.set_image(PICTURE, modality="US")
    for k in range(1, 4):
        predictor.predict(BOX, points=[[9, 6], [25, 15], [3, 3]][:k])
    assert backend.answered == 4 and backend.contents == 1


def test_order_of_clicks_counts(predictor):
    predictor.set_image(PICTURE)
    one, other = (
        predictor.predict(BOX, points=p, point_labels=s)
        for p, s in (([[9, 6], [10, 6]], [1, 0]), ([[10, 6], [9, 6]], [0, 1]))
    )
    assert (one.masks[0] != other.masks[0]).any()


def test_objects_with_and_without_clicks(predictor):
    """Each object is as it is alone, in the order given."""
    predictor.set_image(PICTURE, modality="US")
    boxes = [BOX, [4, 3, 16, 11], [2, 2, 9, 9]]
    points, labels = [[], [[8, 5], [12, 9]], []], [[], [1, 0], []]
    found = predictor.predict(boxes, points=points, point_labels=labels)
    for k, box in enumerate(boxes):
        alone = predictor.predict(box, **({"points": points[k], "point_labels": labels[k]} if points[k] else {}))
        np.testing.assert_array_equal(found.masks[k], alone.masks[0])
        assert found.iou[k] == alone.iou[0]
    report = found.describe()["boxes"]
    assert [entry["points"] for entry in report] == [[], [[8, 5], [12, 9]], []]
    assert [entry["point_labels"] for entry in report] == labels
    assert "points" not in predictor.predict(BOX).describe()["boxes"][0]


def test_masks_are_corrected(predictor, tmp_path):
    predictor.set_image(PICTURE, modality="US")
    earlier = predictor.predict([BOX, [4, 3, 16, 11]])
    corrected = predictor.predict(masks=earlier, points=[[[9, 6]], [[10, 7]]])
    assert len(corrected.masks) == 2 and np.isnan(corrected.boxes).all()
    for k in range(2):
        alone = predictor.predict(masks=earlier.masks[k], points=[[9, 6], [10, 7]][k])
        np.testing.assert_array_equal(corrected.masks[k], alone.masks[0])
    unlike = predictor.predict(masks=[np.zeros_like(PICTURE)], points=[9, 6])
    assert (unlike.masks[0] != corrected.masks[0]).any()
    report = corrected.save(tmp_path)
    assert [entry["box"] for entry in report["boxes"]] == [None, None]
    assert all(entry["corrects_mask"] for entry in report["boxes"])


@pytest.mark.parametrize(
    "axes", [np.diag([1.0, 1, 1]), np.diag([-1.0, -1, 2]), np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]])]
)
def test_clicks_lie_where_the_file_has_them(predictor, backend, tmp_path, axes):
    """In a volume with any axes, a click x y z changes the mask around voxel x, y, z, on its slice alone."""
    affine = np.eye(4)
    affine[:3, :3] = axes
    rng = np.random.default_rng(0)
    array = np.where(VOLUME, 200, rng.integers(0, 60, VOLUME.shape)).astype(np.uint8).transpose(2, 1, 0)
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "v.nii.gz")
    predictor.set_image(tmp_path / "v.nii.gz", modality="MR")
    before = predictor.predict(BOX_3D, follow=False).masks[0]
    result = predictor.predict(BOX_3D, points=[14, 8, 2], point_labels=[0], follow=False)
    changed = np.argwhere(before != result.masks[0])
    assert before[14, 8, 2] and not result.masks[0][14, 8, 2]
    axis = int(np.abs(np.linalg.inv(axes) @ [0, 0, 1]).argmax())  # along the slices
    assert np.unique(changed[:, axis]).tolist() == [[14, 8, 2][axis]]
    assert result.save(tmp_path / "out")["boxes"][0]["points"] == [[14, 8, 2]]


def test_clicks_on_a_slice(predictor, tmp_path):
    predictor.set_image(VOLUME)
    plain = predictor.predict([BOX, BOX], slice=[2, 3])
    result = predictor.predict([BOX, BOX], slice=[2, 3], points=[[[9, 6]], []], point_labels=[[0], []])
    assert (plain.masks[0] != result.masks[0]).any(axis=(1, 2)).tolist() == [0, 0, 1, 0, 0, 0]
    np.testing.assert_array_equal(plain.masks[1], result.masks[1])
    assert result.save(tmp_path)["boxes"][0]["points"] == [[9, 6]]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_clicks_and_masks_on_a_picture_in_space(predictor, tmp_path, axis):
    """A NIfTI of one slice, flipped, along any axis."""
    affine = np.diag([-1.0, 1.0, -1.0, 1.0])
    pixels = np.where(PICTURE, 200, np.random.default_rng(0).integers(0, 60, PICTURE.shape)).astype(np.uint8).T
    nib.save(nib.Nifti1Image(np.expand_dims(pixels, axis), affine), tmp_path / "s.nii.gz")
    predictor.set_image(tmp_path / "s.nii.gz", modality="MR")
    before = predictor.predict(BOX)
    result = predictor.predict(BOX, points=[14, 8], point_labels=[0])
    voxel = tuple(np.insert([14, 8], axis, 0))
    assert before.masks[0][voxel] and not result.masks[0][voxel]
    again = predictor.predict(masks=before, points=[14, 8], point_labels=[0])
    np.testing.assert_array_equal(again.masks[0] & ~before.masks[0], False)
    assert not again.masks[0][voxel] and again.masks[0].any()
