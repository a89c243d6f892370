from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from custom.errors import InputError
from custom.inference import BoxSegmenter, as_uint8
from custom.inference.segmenter import NEXT_SLICE_MARGIN, LabelCanvas
from custom.networks.mcp_medsam import MCPMedSAMOutput
from custom.transforms import Frame

SIZE = (64, 128)  # two frame pixels for a native one


class Threshold(nn.Module):
    """Stands for the network: a mask is where the image in the frame is bright, inside the box or, if asked, anywhere.

    The embedding is the frame's image itself; the IoU is the number of calls so far.
    """

    def __init__(self, inside=True, modality=False):
        super().__init__()
        self.inside, self.modality = inside, modality
        self.components = SimpleNamespace(clip_image=True)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.encoded, self.decoded = [], []

    def encode_image(self, image):
        self.encoded.append(image)
        return image

    def decode(self, embedding, boxes, modality, crop, image_feature):
        self.decoded.append(SimpleNamespace(boxes=boxes, modality=modality, crop=crop, feature=image_feature))
        n = boxes.shape[1]
        masks = []
        y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
        for x_min, y_min, x_max, y_max in boxes[0]:
            within = (x >= x_min - 0.5) & (x <= x_max + 0.5) & (y >= y_min - 0.5) & (y <= y_max + 0.5)
            bright = embedding[0, 0] > 0.5
            masks.append(torch.where(bright & within if self.inside else bright, self.scale, -self.scale))
        first = sum(call.boxes.shape[1] for call in self.decoded[:-1])
        logits = torch.eye(11)[:n] * 9 if self.modality else None
        return MCPMedSAMOutput(torch.stack(masks)[None], torch.arange(first, first + n)[None] / 10, logits, None, None)


def picture(*boxes, size=SIZE):
    """A dark picture with bright boxes, both ends inside."""
    image = np.zeros(size, np.uint8)
    for x_min, y_min, x_max, y_max in boxes:
        image[y_min : y_max + 1, x_min : x_max + 1] = 200
    return image


def test_the_larger_logit_wins():
    canvas = LabelCanvas((1, 4), 2)
    canvas.paint(1, np.array([[-1.0, 2.0, 2.0, 5.0]]))
    canvas.paint(2, np.array([[-2.0, 3.0, 1.0, 5.0]]))
    assert canvas.labels.tolist() == [[0, 2, 1, 1]] and canvas.labels.dtype == np.uint8


def test_the_order_of_boxes_does_not_matter():
    logits = np.random.default_rng(0).normal(size=(3, 8, 8))
    expected = np.where(logits.max(axis=0) > 0, logits.argmax(axis=0) + 1, 0)
    for order in ([0, 1, 2], [2, 0, 1]):
        canvas = LabelCanvas((2, 8, 8), 3)
        for k in order:
            canvas.paint(k + 1, logits[k], 1)
        np.testing.assert_array_equal(canvas.labels[1], expected)
        assert not canvas.labels[0].any()


@pytest.mark.parametrize(("boxes", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_room_for_every_label(boxes, dtype):
    canvas = LabelCanvas((2, 2), boxes)
    canvas.paint(boxes, np.ones((2, 2)))
    assert canvas.labels.dtype == dtype and (canvas.labels == boxes).all()


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_picture(colour, at_once):
    objects = [(10, 8, 30, 20), (60, 30, 100, 50), (110, 2, 120, 12)]
    image = picture(*objects)
    boxes = np.array(objects) + [-2, -2, 2, 2]
    network = Threshold(modality=at_once == 8)
    shown = np.repeat(image[:, :, None], 3, axis=2) if colour else image
    result = BoxSegmenter(boxes_at_once=at_once).segment_picture(network, shown, boxes, "US")
    expected = np.zeros(SIZE, np.uint8)
    for k, (x_min, y_min, x_max, y_max) in enumerate(objects, start=1):
        expected[y_min : y_max + 1, x_min : x_max + 1] = k
    np.testing.assert_array_equal(result.labels, expected)
    np.testing.assert_allclose(result.iou, [0, 0.1, 0.2])
    assert len(network.encoded) == 1 and len(network.decoded) == -(-3 // at_once)
    call = network.decoded[0]
    assert call.modality.tolist() == [7] and call.feature is None
    torch.testing.assert_close(call.boxes, Frame(*SIZE).boxes_to_frame(torch.tensor(boxes[:at_once]).float())[None])
    assert call.crop.shape == (1, min(at_once, 3), 3, 64, 64) and call.crop.max() <= 1
    if at_once == 8:
        assert result.modality.shape == (3, 11) and result.modality.argmax(axis=1).tolist() == [0, 1, 2]
        np.testing.assert_allclose(result.modality.sum(axis=1), 1, rtol=1e-5)
    else:
        assert result.modality is None


def test_clip_sees_the_crops():
    seen = []

    def encode_image(crops):
        seen.append(crops)
        return torch.arange(float(len(crops)))[:, None].expand(-1, 5)

    clip = SimpleNamespace(to=lambda device: clip, encode_image=encode_image)
    network = Threshold()
    BoxSegmenter(clip=clip).segment_picture(network, picture(), np.array([[1, 2, 30, 40], [5, 5, 9, 9]]))
    assert seen[0].shape == (2, 3, 224, 224) and network.decoded[0].feature.shape == (1, 2, 5)
    network.components.clip_image = False
    BoxSegmenter(clip=clip).segment_picture(network, picture(), np.array([[1, 2, 30, 40]]))
    assert len(seen) == 1 and network.decoded[1].feature is None and network.decoded[1].modality.tolist() == [-1]


def volume(depth, objects):
    """A volume of dark slices, ``objects`` on some of them."""
    return np.stack([picture(*([objects[z]] if z in objects else [])) for z in range(depth)])


def native_boxes(network):
    """The boxes the network was asked for, in native pixels."""
    return [((call.boxes[0, 0] + 0.5) / Frame(*SIZE).scale - 0.5).tolist() for call in network.decoded]


def test_volume_is_followed_from_the_middle_to_both_ends():
    objects = {z: (40 - 2 * z, 20, 60 + 2 * z, 40) for z in range(1, 6)}
    data, network = volume(7, objects), Threshold(modality=True)
    result = BoxSegmenter().segment_volume(network, data, np.array([[20, 10, 1, 80, 50, 5]]), "CT")
    np.testing.assert_array_equal(result.labels, (data > 100).astype(np.uint8))  # slices 1 to 5, both ends included
    margin = NEXT_SLICE_MARGIN / 2

    def grown(z):
        x_min, y_min, x_max, y_max = objects[z]
        return [max(x_min - margin, 20), y_min - margin, min(x_max + margin, 80), y_max + margin]

    # slices 3, 4, 5, then 2, 1: each with the box of the mask before it, 2 again with that of the middle
    expected = [[20, 10, 80, 50], grown(3), grown(4), grown(3), grown(2)]
    np.testing.assert_allclose(native_boxes(network), expected, atol=1e-4)
    assert len(network.encoded) == 5 and result.iou == pytest.approx(np.arange(5).mean() / 10)
    assert result.modality.shape == (1, 11)


def test_each_slice_is_encoded_once_for_all_boxes():
    data, network = volume(6, {z: (40, 20, 60, 40) for z in range(6)}), Threshold()
    boxes = np.array([[30, 10, 0, 70, 50, 3], [30, 10, 2, 70, 50, 5], [30, 10, 4, 50, 50, 4]])
    result = BoxSegmenter().segment_volume(network, data, boxes)
    assert len(network.encoded) == 6 and len(network.decoded) == 4 + 4 + 1
    assert result.iou.shape == (3,) and result.labels.shape == data.shape
    assert set(np.unique(result.labels[0])) == {0, 1} and set(np.unique(result.labels[5])) == {0, 2}


def test_empty_mask_keeps_the_last_box():
    objects = {2: (40, 20, 60, 40), 4: (42, 22, 58, 38)}  # nothing on slice 3
    network = Threshold()
    result = BoxSegmenter().segment_volume(network, volume(5, objects), np.array([[20, 10, 0, 80, 50, 4]]))
    middle = [37.5, 17.5, 62.5, 42.5]
    np.testing.assert_allclose(native_boxes(network), [[20, 10, 80, 50], middle, middle, middle, middle], atol=1e-4)
    assert [bool(plane.any()) for plane in result.labels] == [False, False, True, False, True]


def test_nothing_at_all_keeps_the_given_box():
    network = Threshold()
    result = BoxSegmenter().segment_volume(network, volume(3, {}), np.array([[20, 10, 0, 80, 50, 2]]))
    assert not result.labels.any() and native_boxes(network) == [[20, 10, 80, 50]] * 3


def test_mask_outside_the_given_box_keeps_the_last_box():
    network = Threshold(inside=False)
    data = volume(3, {z: (100, 20, 120, 40) for z in range(3)})
    BoxSegmenter().segment_volume(network, data, np.array([[10, 10, 0, 40, 50, 2]]))
    assert native_boxes(network) == [[10, 10, 40, 50]] * 3


@pytest.mark.parametrize("names", [["MRI"], [""], None])
def test_as_engines_call_it(names):
    segmenter, index = BoxSegmenter(), [-1] if not names or not names[0] else [1]
    image = picture((10, 8, 30, 20))
    network = Threshold()
    found = segmenter(torch.from_numpy(image)[None], network, torch.tensor([[[8.0, 6, 32, 22]]]), names)
    assert found.dtype == torch.int32 and found.shape == (1, *SIZE)
    np.testing.assert_array_equal(found[0], image > 0)
    boxes = torch.tensor([[[8.0, 6, 0, 32, 22, 1]]])
    found = segmenter(torch.from_numpy(np.stack([image] * 3))[None], network, boxes, names)
    assert found.shape == (1, 3, *SIZE) and found.sum(dim=(2, 3)).tolist() == [[273, 273, 0]]
    assert all(call.modality.tolist() == index for call in network.decoded)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([[0, 255]], np.uint8), [[0, 255]]),
        (np.array([[0, 255]], np.int64), [[0, 255]]),
        (np.array([[0.4, 254.6]]), [[0, 255]]),
    ],
)
def test_uint8(image, expected):
    found = as_uint8(image, "a.png")
    assert found.dtype == np.uint8 and found.tolist() == expected


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.array([[0, 256]]), "int64 values 0 to 256"),
        (np.array([[-1.0, 2]]), "float64 values -1.0 to 2.0"),
        (np.array([[0, np.nan]]), "float64 values nan to nan"),
        (np.array([[0, np.inf]], np.float32), "float32 values 0.0 to inf"),
        (np.array([["a"]]), "<U1 values"),
        (np.array([[1j]]), "complex128 values"),
        (np.array([[True]]), "bool values"),
        (np.zeros((0, 4), np.uint8), "shape (0, 4)"),
    ],
)
def test_not_uint8(image, found):
    with pytest.raises(InputError) as error:
        as_uint8(image, "a.png")
    assert str(error.value).startswith(f"a.png: image: found {found}; allowed: ")
