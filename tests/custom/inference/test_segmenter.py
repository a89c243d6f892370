from functools import partial

import numpy as np
import pytest

from custom.errors import InputError
from custom.images.frame import Frame, crop_box
from custom.inference.corrections import Corrections
from custom.inference.segmenter import NEXT_SLICE_MARGIN, SAME_SLICE_MARGIN, BoxSegmenter
from custom.modalities import MODALITIES, modality_index
from custom.prompts import Prompts

SIZE = (64, 128)  # two frame pixels for a native one


def picture(*boxes, size=SIZE):
    """A dark picture with bright boxes, both ends inside."""
    image = np.zeros(size, np.uint8)
    for x_min, y_min, x_max, y_max in boxes:
        image[y_min : y_max + 1, x_min : x_max + 1] = 200
    return image


def volume(depth, objects):
    """A volume of dark slices, ``objects`` on some of them."""
    return np.stack([picture(*([objects[z]] if z in objects else [])) for z in range(depth)])


def native_boxes(backend):
    """The boxes that the backend decoded, in native pixels, call by call."""
    return [((call.boxes + 0.5) / Frame(*SIZE).scale - 0.5).tolist() for call in backend.decoded]


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_picture(make_backend, colour, at_once):
    objects = [(10, 8, 30, 20), (60, 30, 100, 50), (110, 2, 120, 12)]
    image = picture(*objects)
    boxes = np.array(objects) + [-2, -2, 2, 2]
    backend = make_backend()
    shown = np.repeat(image[:, :, None], 3, axis=2) if colour else image
    result = BoxSegmenter(backend, boxes_at_once=at_once).segment_picture(shown, boxes, "US")
    expected = np.zeros(SIZE, np.uint8)
    for k, (x_min, y_min, x_max, y_max) in enumerate(objects, start=1):
        expected[y_min : y_max + 1, x_min : x_max + 1] = k
    np.testing.assert_array_equal(result.labels, expected)
    np.testing.assert_allclose(result.iou, (boxes[:, 2] - boxes[:, 0]) * 2 / 256, rtol=1e-6)
    assert len(backend.encoded) == 1 and [len(call.boxes) for call in backend.decoded] == [
        min(at_once, 3 - n) for n in range(0, 3, at_once)
    ]
    assert {call.modality for call in backend.decoded} == {modality_index("US")} and result.modality == "US"
    largest = boxes[[1, 0, 2]]
    np.testing.assert_allclose(np.concatenate(native_boxes(backend)), largest, atol=1e-4)
    np.testing.assert_array_equal(backend.decoded[0].crops[0], crop_box(np.stack([image] * 3), largest[0], 64))
    assert result.probabilities.argmax(axis=1).tolist() == [MODALITIES.index("US")] * 3
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert result.masks is None and set(result.seconds) == {"encode", "decode", "resize"}


@pytest.mark.parametrize("count", [64, 1000])
def test_many_boxes_need_one_encoding(make_backend, count):
    corners = np.random.default_rng(0).integers(0, [100, 40], (count, 2))
    boxes = np.concatenate([corners, corners + 20], axis=1)
    backend = make_backend()
    result = BoxSegmenter(backend, overlap="last").segment_picture(picture((0, 0, 125, 63)), boxes, "US")
    assert len(backend.encoded) == 1 and sum(len(call.boxes) for call in backend.decoded) == count
    assert result.iou.shape == (count,) and result.labels.dtype == (np.uint8 if count < 256 else np.uint16)
    expected = np.zeros(SIZE, int)
    for k, (x_min, y_min, x_max, y_max) in enumerate(boxes, start=1):
        expected[y_min : y_max + 1, x_min : x_max + 1] = k
    np.testing.assert_array_equal(result.labels, expected)


@pytest.mark.parametrize("picture_or_volume", ["picture", "volume"])
@pytest.mark.parametrize("uses_modality", [True, False])
def test_unknown_modality_is_told_by_the_classifier(make_backend, picture_or_volume, uses_modality):
    backend = make_backend(likely="OCT", uses_modality=uses_modality)
    segmenter, image = BoxSegmenter(backend), picture((10, 8, 30, 20))
    if picture_or_volume == "picture":
        result = segmenter.segment_picture(image, np.array([[8, 6, 32, 22]]))
    else:
        result = segmenter.segment_volume(np.stack([image] * 3), np.array([[8, 6, 0, 32, 22, 2]]))
    asked = [call.modality for call in backend.decoded]
    if uses_modality:
        assert result.modality == "OCT" and asked[0] == -1 and set(asked[1:]) == {modality_index("OCT")}
        assert len(asked) == (2 if picture_or_volume == "picture" else 1 + 2 * 3)  # each of 3 slices twice
        assert result.probabilities.shape == (1, len(MODALITIES))
    else:
        assert result.modality is None and result.probabilities is None and set(asked) == {-1}
    assert len(backend.encoded) == (1 if picture_or_volume == "picture" else 3)


def test_network_without_modality_is_not_prompted_with_one(make_backend):
    backend = make_backend(uses_modality=False)
    result = BoxSegmenter(backend).segment_picture(picture(), np.array([[8, 6, 32, 22]]), "US")
    assert result.modality is None and backend.decoded[0].modality == -1


def test_volume_is_followed_from_the_middle_to_both_ends(make_backend):
    objects = {z: (40 - 2 * z, 20, 60 + 2 * z, 40) for z in range(1, 6)}
    data, backend = volume(7, objects), make_backend()
    result = BoxSegmenter(backend).segment_volume(data, np.array([[20, 10, 1, 80, 50, 5]]), "CT")
    np.testing.assert_array_equal(result.labels, (data > 100).astype(np.uint8))  # slices 1 to 5, both ends included

    def grown(z, margin):
        x_min, y_min, x_max, y_max = objects[z]
        return [max(x_min - margin, 20), y_min - margin, min(x_max + margin, 80), y_max + margin]

    # slices 3, 4, 5, then 2, 1: each with the box of the mask before it, 2 again with that of the middle
    before = [[20, 10, 80, 50], *(grown(z, 2.5) for z in (3, 4, 3, 2))]
    own = [grown(z, 0.5) for z in (3, 4, 5, 2, 1)]
    expected = [[box] for pair in zip(before, own, strict=True) for box in pair]
    np.testing.assert_allclose(native_boxes(backend), expected, atol=1e-4)
    assert len(backend.encoded) == 5 and result.probabilities.shape == (1, 11)


def test_empty_mask_keeps_the_last_box(make_backend):
    objects = {2: (40, 20, 60, 40), 4: (42, 22, 58, 38)}  # nothing on slice 3
    backend = make_backend()
    result = BoxSegmenter(backend).segment_volume(volume(5, objects), np.array([[20, 10, 0, 80, 50, 4]]), "CT")
    middle, own, last = [[37.5, 17.5, 62.5, 42.5]], [[39.5, 19.5, 60.5, 40.5]], [[41.5, 21.5, 58.5, 38.5]]
    expected = [[[20, 10, 80, 50]], own, middle, middle, middle, last, *[middle] * 4]  # slices 2, 3, 4, 1, 0
    np.testing.assert_allclose(native_boxes(backend), expected, atol=1e-4)
    assert [bool(plane.any()) for plane in result.labels] == [False, False, True, False, True]


def test_nothing_at_all_keeps_the_given_box(make_backend):
    backend = make_backend()
    result = BoxSegmenter(backend).segment_volume(volume(3, {}), np.array([[20, 10, 0, 80, 50, 2]]), "CT")
    assert not result.labels.any() and native_boxes(backend) == [[[20, 10, 80, 50]]] * 6


def test_mask_outside_the_given_box_keeps_the_last_box(make_backend):
    backend = make_backend(reach=300)
    data = volume(3, {z: (100, 20, 120, 40) for z in range(3)})
    BoxSegmenter(backend).segment_volume(data, np.array([[10, 10, 0, 40, 50, 2]]), "CT")
    assert native_boxes(backend) == [[[10, 10, 40, 50]]] * 6


def slow_reference(backend, data, boxes, modality, overlap, follow):
    """Box by box, from the middle outwards, every slice encoded anew; then the overlaps, pixel rule by pixel rule."""
    masks, ranks, ious = np.zeros((len(boxes), *data.shape[:3]), bool), {}, []
    for k, box in enumerate(boxes):
        given, low, high = box[[0, 1, 3, 4]], int(box[2]), int(box[5])
        middle = (low + high) // 2
        found, prompts = [], {middle: given}
        for z in [*range(middle, high + 1), *range(middle - 1, low - 1, -1)]:
            image = data[z] if data.ndim == 4 else np.repeat(data[z][..., None], 3, axis=2)
            image = image.transpose(2, 0, 1)
            frame = Frame(*image.shape[1:])
            (embedding,) = backend.encode(frame.image_to_frame(image)[None])
            box = prompts[z]
            for in_frame, native in (SAME_SLICE_MARGIN, NEXT_SLICE_MARGIN) if follow else ((0, 0),):
                crops = crop_box(image, box, 64)[None]
                prompt = frame.boxes_to_frame(box[None]).astype(np.float32)
                said = Prompts(boxes=prompt, crops=crops, crop_boxes=prompt, modality=modality_index(modality))
                decoded = backend.decode(embedding, said)
                logits = frame.logits_to_native(decoded.mask_logits)[0]
                ys, xs = np.nonzero(logits > 0)
                following = prompts[z]
                if len(xs) and follow:
                    margin = max(in_frame / frame.scale, native)
                    low, high = [xs.min() - margin, ys.min() - margin], [xs.max() + margin, ys.max() + margin]
                    grown = np.concatenate([np.maximum(low, given[:2]), np.minimum(high, given[2:])])
                    if grown[0] < grown[2] and grown[1] < grown[3]:
                        following = grown
                box = following
            found.append(decoded.iou[0])
            masks[k, z], ranks[k, z] = logits > 0, logits
            for after in (z + 1, z - 1):
                prompts.setdefault(after, following)
        ious.append(np.mean(found))
    labels = np.zeros(data.shape[:3], int)
    for z, y, x in zip(*np.nonzero(masks.any(axis=0)), strict=True):
        inside = np.flatnonzero(masks[:, z, y, x])
        lowest = {
            "logit": [-ranks[k, z][y, x] for k in inside],
            "smaller": [masks[k, z].sum() for k in inside],
            "last": -inside,
        }
        labels[z, y, x] = inside[np.argmin(lowest[overlap])] + 1
    return masks, labels, np.array(ious)


def random_volume(rng, depth=9, colour=False):
    """Bright ellipses that wander, appear and vanish, with noise."""
    z, y, x = np.mgrid[:depth, :24, :40]
    image = rng.uniform(0, 60, (depth, 24, 40))
    for _ in range(5):
        centre, radius = rng.uniform([0, 4, 4], [depth, 20, 36]), rng.uniform([1.5, 3, 3], [4, 8, 12])
        drift = rng.uniform(-1.5, 1.5)
        inside = ((z - centre[0]) / radius[0]) ** 2 + ((y - centre[1] - drift * (z - centre[0])) / radius[1]) ** 2
        image[inside + ((x - centre[2]) / radius[2]) ** 2 < 1] += rng.uniform(120, 195)
    image = image.astype(np.uint8)
    return np.stack([image, image[::-1], image], axis=-1) if colour else image


def random_boxes(rng, count, depth=9):
    low = rng.integers([0, 0, 0], [28, 14, depth], (count, 3))
    high = np.minimum(low + rng.integers([5, 5, 0], [20, 12, depth], (count, 3)), [39, 23, depth - 1])
    return np.concatenate([low, high], axis=1).astype(float)


@pytest.mark.parametrize("overlap", ["logit", "smaller", "last"])
@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize(("seed", "kept", "at_once"), [(0, 64, 4), (1, 0, 1), (2, 1, 3)])
def test_volume_against_a_slow_reference(make_backend, overlap, follow, seed, kept, at_once):
    rng = np.random.default_rng(seed)
    data = random_volume(rng, colour=seed == 2)
    boxes = random_boxes(rng, 6)
    boxes[0, [2, 5]], boxes[1, [2, 5]], boxes[2, [2, 5]] = (0, 8), (0, 0), (8, 8)  # all, the first, the last slice
    options = {"slices_kept": kept, "slices_at_once": at_once, "boxes_at_once": 2}
    segmenter = BoxSegmenter(make_backend(reach=6), overlap=overlap, keep_masks=True, **options)
    found = segmenter.segment_volume(data, boxes, "MR", follow=follow)
    masks, labels, iou = slow_reference(make_backend(reach=6), data, boxes, "MR", overlap, follow)
    assert masks.any(axis=(1, 2, 3)).sum() >= 4 and (masks.sum(axis=0) > 1).any()
    np.testing.assert_array_equal(np.stack(list(found.masks)), masks)
    assert [found.masks.area(k) for k in range(6)] == masks.sum(axis=(1, 2, 3)).tolist()
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.iou, iou, rtol=1e-6)


@pytest.mark.parametrize("kept", [0, 2, 64])
def test_each_slice_is_encoded_once_unless_too_many_are_to_be_kept(make_backend, kept):
    rng = np.random.default_rng(3)
    data, backend = random_volume(rng, depth=30), make_backend()
    boxes = np.concatenate([random_boxes(rng, 62, depth=30), [[0, 0, 0, 39, 23, 29], [3, 3, 10, 30, 20, 29]]])
    segmenter = BoxSegmenter(backend, slices_kept=kept)
    segmenter.segment_volume(data, boxes)
    counts = np.unique(backend.encoded, return_counts=True)[1]
    assert len(counts) == 30 and (counts.max() == 1 if kept == 64 else counts.max() == 2)
    backend.encoded.clear()
    segmenter.segment_volume(data, boxes, follow=False)
    assert len(backend.encoded) == 30


def test_one_slice(make_backend):
    found = BoxSegmenter(make_backend()).segment_volume(
        picture((10, 8, 30, 20))[None], np.array([[8, 6, 0, 32, 22, 0]])
    )
    assert found.labels.shape == (1, *SIZE) and found.labels.sum() == 21 * 13


def test_constant_image(make_backend):
    found = BoxSegmenter(make_backend()).segment_picture(np.full(SIZE, 7, np.uint8), np.array([[8, 6, 32, 22]]))
    assert not found.labels.any() and np.isfinite(found.iou).all()


def test_unknown_overlap(make_backend):
    with pytest.raises(InputError, match="overlap: found 'first'; allowed: logit, smaller, last"):
        BoxSegmenter(make_backend(), overlap="first")


@pytest.mark.parametrize("spoilt", ["mask_logits", "iou"])
def test_network_that_gives_no_numbers(make_backend, spoilt):
    backend = make_backend()
    decode = backend.decode
    backend.decode = lambda *given: (d := decode(*given))._replace(**{spoilt: getattr(d, spoilt) * np.nan})
    with pytest.raises(InputError, match="network: mask logits or IoU: found NaN or infinite values"):
        BoxSegmenter(backend).segment_picture(picture(), np.array([[8, 6, 32, 22]]), "US")


@pytest.mark.parametrize("deep", [False, True])
def test_boxes_in_any_order(make_backend, deep):
    """More boxes than decide the modality, the smaller ones predicting another, and more than are decoded together."""
    rng = np.random.default_rng(0)
    objects = rng.integers([0, 0], [60, 20], (12, 2))
    boxes = np.concatenate([objects, objects + rng.integers(5, 40, (12, 2))], axis=1).astype(float)
    backend = make_backend(reach=6)
    decode = backend.decode

    def recorded(embedding, prompts):
        decoded, framed = decode(embedding, prompts), prompts.boxes
        decoded.modality_logits[:] = 0
        large = np.prod(framed[:, 2:] - framed[:, :2], axis=1) > 1500
        decoded.modality_logits[np.arange(len(framed)), np.where(large, 2, 5)] = 8
        return decoded._replace(mask_logits=decoded.mask_logits + (1 + prompts.modality) * 1e-2)

    backend.decode = recorded
    image = picture((10, 8, 30, 20), (50, 20, 90, 40))
    segmenter = BoxSegmenter(backend, boxes_at_once=5, keep_masks=True)
    if deep:
        boxes = np.insert(boxes, [2, 4], [[0, 2]] * 12, axis=1)
        segment = partial(segmenter.segment_volume, np.stack([image] * 3))
    else:
        segment = partial(segmenter.segment_picture, image)
    alone = {segment(box[None]).modality for box in boxes}
    first = segment(boxes)
    assert alone == {MODALITIES[2], MODALITIES[5]}
    for _ in range(3):
        order = rng.permutation(12)
        other = segment(boxes[order])
        assert other.modality == first.modality == MODALITIES[2]
        np.testing.assert_array_equal(np.stack(list(other.masks)), np.stack(list(first.masks))[order])
        np.testing.assert_array_equal(other.iou, first.iou[order])
        np.testing.assert_array_equal(other.probabilities, first.probabilities[order])


def test_a_click_on_a_slice_prompts_the_next_one(make_backend):
    """The corrected mask of slice 4 prompts slice 5."""
    data = volume(7, {z: (40, 20, 60, 40) for z in range(1, 6)})
    boxes = np.array([[20, 10, 1, 80, 50, 5]])
    plain, clicked = make_backend(), make_backend()
    before = BoxSegmenter(plain, keep_masks=True).segment_volume(data, boxes, "CT")
    said = [Corrections(points=np.array([[70.0, 30, 4]]), labels=np.array([1]))]
    after = BoxSegmenter(clicked, keep_masks=True).segment_volume(data, boxes, "CT", corrections=said)
    changed = (before.masks[0] != after.masks[0]).any(axis=(1, 2))
    assert changed.tolist() == [False] * 4 + [True] + [False] * 2 and after.masks[0][4, 30, 70]
    prompted = native_boxes(plain), native_boxes(clicked)
    assert len(clicked.decoded) == len(plain.decoded) + 1  # the click itself
    last_before, last_after = prompted[0][4][0], prompted[1][5][0]
    assert last_after[2] > last_before[2]  # the first prompt of slice 5 reaches as far as the click
    assert after.iou[0] != before.iou[0]


def test_clicks_on_one_of_many_objects(make_backend):
    """Boxes are decoded together, objects with clicks alone; each as without the others."""
    rng = np.random.default_rng(0)
    image, boxes = picture((0, 0, 125, 63)), np.array([[8, 6, 32, 22], [40, 10, 70, 30], [80, 20, 100, 50]], float)
    said = [Corrections(), Corrections(points=rng.uniform(10, 60, (3, 2)), labels=np.array([0, 1, 0])), Corrections()]
    backend = make_backend()
    found = BoxSegmenter(backend, keep_masks=True).segment_picture(image, boxes, "US", corrections=said)
    assert [len(call.boxes) for call in backend.decoded] == [2, 1, 1, 1, 1]
    for k in range(3):
        alone = BoxSegmenter(make_backend(), keep_masks=True)
        expected = alone.segment_picture(image, boxes[k : k + 1], "US", corrections=said[k : k + 1])
        np.testing.assert_array_equal(found.masks[k], expected.masks[0])
        assert found.iou[k] == expected.iou[0]
