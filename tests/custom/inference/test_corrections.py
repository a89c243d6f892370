"""How a mask follows from clicks: what the network is asked, call by call."""

import numpy as np
import pytest

from custom.clicks import VIEW_SIZE, view_boxes
from custom.images.frame import Frame, crop_box
from custom.inference.backend import Decoded
from custom.inference.corrections import Correction, Corrections
from custom.prompts import NO_POINT

IMAGE = np.random.default_rng(0).integers(0, 255, (3, 64, 128)).astype(np.uint8)  # two frame pixels for a native one
FRAME = Frame(64, 128)
BOX = np.array([20.0, 10.0, 60.0, 40.0])


class Recorder:
    """Answers the n-th call with a mask of its own, 30 x 20 native pixels at (10 n, 5 n)."""

    def __init__(self):
        self.calls, self.answers, self.results = [], [], []

    def __call__(self, prompts, answer):
        n = len(self.calls)
        logits = np.full((1, 256, 256), -1.0 - n, np.float32)
        logits[:, 10 * n : 10 * n + 40, 20 * n : 20 * n + 60] = 1.0 + n
        self.calls.append(prompts)
        self.answers.append(answer)
        self.results.append(Decoded(logits, np.array([n / 10], np.float32), None))
        return self.results[-1]


def run(box, points=(), labels=None, mask=None):
    recorder = Recorder()
    points = np.array(points, np.float64).reshape(len(points), 2)
    labels = np.ones(len(points), np.int64) if labels is None else np.array(labels)
    given = Corrections(points=points, labels=labels, mask=mask)
    result = Correction(IMAGE, FRAME, crop_size=64, decode=recorder).run(box, given)
    assert result is recorder.results[-1]
    return recorder


def check_view(call, low, high):
    """The view shows the box ``low`` to ``high``, enlarged."""
    (view,) = view_boxes(np.array([[*low, *high]], float), (64, 128))
    np.testing.assert_array_equal(call.views[0], crop_box(IMAGE, view, VIEW_SIZE))
    np.testing.assert_allclose(call.view_boxes, FRAME.boxes_to_frame(view[None]), atol=1e-4)


def test_box_and_clicks():
    done = run(BOX, [[30, 20], [90, 50], [5, 30]], [1, 0, 1])
    first, *clicked = done.calls
    assert first.views is None and first.points is None and first.masks is None and done.answers[0] is None
    for k, call in enumerate(clicked, 1):
        assert done.answers[k] is done.results[0]
        np.testing.assert_allclose(call.boxes, FRAME.boxes_to_frame(BOX[None]))
        np.testing.assert_array_equal(call.crops[0], crop_box(IMAGE, BOX, 64))
        np.testing.assert_allclose(call.points[0], np.array([[60.5, 40.5], [180.5, 100.5], [10.5, 60.5]])[:k])
        assert call.point_labels.tolist() == [[1, 0, 1][:k]] and call.point_labels.dtype == np.int64
        assert call.masks is done.results[k - 1].mask_logits  # the mask before this click
    check_view(clicked[0], BOX[:2], BOX[2:])
    check_view(clicked[1], BOX[:2], [90, 50])
    check_view(clicked[2], [5, 10], [90, 50])


def test_clicks_alone_find_the_object_by_the_first_one():
    """The first click on the whole image, then all clicks where the last mask is."""
    done = run(None, [[30, 20], [90, 50]], [1, 0])
    assert [None if call.views is None else call.points.shape[1] for call in done.calls] == [None, 1, 2]
    whole = np.array([0, 0, 127, 63])
    for call in done.calls:
        assert (call.boxes == -1).all()
        np.testing.assert_array_equal(call.crops[0], crop_box(IMAGE, whole, 64))
        np.testing.assert_allclose(call.crop_boxes, FRAME.boxes_to_frame(whole[None]))
    assert done.calls[0].points.shape[1] == 1 and done.calls[0].masks is None
    assert done.answers == [None, done.results[0], done.results[0]]
    assert done.calls[1].masks is done.results[0].mask_logits and done.calls[2].masks is done.results[1].mask_logits
    check_view(done.calls[1], [0, 0], [30, 20])  # mask 0 reaches from 0, 0 to 29, 19
    check_view(done.calls[2], [10, 5], [90, 50])


@pytest.mark.parametrize("clicks", [[], [[30, 20]]])
def test_a_mask_is_where_the_clicks_start_from(clicks):
    mask = np.zeros((64, 128), bool)
    mask[12:30, 25:70] = True
    done = run(None, clicks, mask=mask)
    assert len(done.calls) == 2 and done.calls[0].views is None
    last = done.calls[1]
    np.testing.assert_allclose(last.boxes, FRAME.boxes_to_frame(np.array([[25, 12, 69, 29]])))  # the mask's own box
    assert last.masks.min() == -10 and last.masks.max() == 10
    np.testing.assert_array_equal(FRAME.logits_to_native(last.masks)[0] > 0, mask)
    assert last.point_labels.tolist() == ([[1]] if clicks else [[NO_POINT]])
    beside = run(BOX, clicks, mask=mask)
    np.testing.assert_allclose(beside.calls[1].boxes, FRAME.boxes_to_frame(BOX[None]))


def test_an_empty_mask_and_an_object_that_is_not_found():
    done = run(None, [[30, 20]], mask=np.zeros((64, 128), bool))
    assert (done.calls[0].boxes == -1).all() and (done.calls[1].masks == -10).all()
    whole = crop_box(IMAGE, np.array([0, 0, 127, 63]), 64)

    def nothing(prompts, answer):
        np.testing.assert_array_equal(prompts.crops[0], whole)
        return Decoded(np.full((1, 256, 256), -1, np.float32), np.zeros(1, np.float32), None)

    given = Corrections(points=np.array([[3.0, 4.0]]), labels=np.array([1]))
    assert (Correction(IMAGE, FRAME, crop_size=64, decode=nothing).run(None, given).mask_logits == -1).all()


def test_clicks_of_a_volume_by_slice():
    given = Corrections(points=np.array([[1, 2, 3], [4, 5, 3.4], [6, 7, 4]]), labels=np.array([1, 0, 1]))
    assert given.on_slice(3).points.tolist() == [[1, 2], [4, 5]] and given.on_slice(3).labels.tolist() == [1, 0]
    assert given.on_slice(4).labels.tolist() == [1] and not given.on_slice(0) and given and not Corrections()
    assert not Corrections(points=np.zeros((0, 3))).on_slice(0)
