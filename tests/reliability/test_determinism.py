"""The same answer for the same input: see ``determinism`` for the tolerances, and for the long part."""

from functools import partial

import numpy as np
import pytest

from custom.inference.batch import SegmentOptions
from custom.inference.segmenter import BoxSegmenter
from custom.inference.torch_backend import TorchBackend
from tests.reliability import determinism
from tests.reliability.commands import run_evaluation
from tests.reliability.inputs import scene, write_images
from tests.reliability.stand_in import StandIn, stand_in_model

BOXES = np.array([[18, 12, 71, 47], [5, 5, 40, 30], [30, 20, 80, 55]], float)


@pytest.fixture(scope="module")
def backend(shared_lively_network):
    """The real network, every component on, CLIP's image feature zero; each picture is encoded once."""
    real, known = TorchBackend(shared_lively_network), {}

    def encode(images):
        key = images.tobytes()
        known[key] = known.get(key) or real.encode(images)
        return known[key]

    recorder = determinism.Recorder(real)
    recorder.encode = encode
    return recorder


def test_boxes_at_once_change_no_mask(backend):
    for count, difference, pixels in determinism.compare_batches(backend, scene((60, 90)), BOXES):
        assert difference <= determinism.LOGIT_TOLERANCE and pixels == 0, count


def test_the_order_of_the_boxes_changes_nothing(backend):
    segmenter = BoxSegmenter(backend, keep_masks=True, boxes_at_once=2)
    assert determinism.order_matters(partial(segmenter.segment_picture, scene((60, 90))), BOXES, seed=1) == []


class Partial(StandIn):
    """Predicts different modalities for small and large boxes, and lets the boxes of a call affect each other."""

    def decode(self, embedding, prompts, answer=None):
        decoded, boxes = super().decode(embedding, prompts, answer), prompts.boxes
        decoded.modality_logits[:] = 0
        decoded.modality_logits[np.arange(len(boxes)), (np.ptp(boxes, axis=1) > 60).astype(int)] = 9
        return decoded._replace(mask_logits=decoded.mask_logits + 1e-3 * boxes[:, :1, None].mean())


@pytest.mark.parametrize("deep", [False, True])
def test_the_order_of_many_boxes_of_two_modalities(deep):
    """More boxes than decide the modality, and more than are computed together."""
    shape = (5, 60, 90) if deep else (60, 90)
    boxes = determinism.random_boxes(shape, 20)
    segmenter = BoxSegmenter(Partial(), keep_masks=True)
    segment = partial(segmenter.segment_volume if deep else segmenter.segment_picture, scene(shape))
    assert {segment(boxes[k : k + 1]).modality for k in range(20)} == {"CT", "MR"}
    for seed in range(3):
        assert determinism.order_matters(segment, boxes, seed) == []


def test_runs_orders_of_files_and_shares(tmp_path):
    listed = write_images(tmp_path / "images", 5)
    assert determinism.folders_that_differ(stand_in_model(), listed, tmp_path / "out", SegmentOptions()) == []


@pytest.mark.slow
def test_workers_of_an_evaluation(tmp_path):
    runs = {f"{n} workers": partial(run_evaluation, num_workers=n) for n in (0, 2)}
    assert determinism.runs_that_differ("evaluate", runs, tmp_path) == []


def test_what_differs_is_found(tmp_path):
    recorders = [determinism.Recorder(StandIn()) for _ in range(2)]
    for recorder, offset in zip(recorders, (0, 1e-2), strict=True):
        recorder.backend.decode = lambda *a, offset=offset: shifted(StandIn().decode(*a), offset)
        BoxSegmenter(recorder).segment_picture(scene((60, 90)), BOXES, "US")
    assert determinism.largest_difference(*recorders) == pytest.approx(1e-2, rel=1e-3)
    assert determinism.masks_that_differ(*recorders, 1e-4) > 0 == determinism.masks_that_differ(*recorders, 1.0)
    dice = np.random.default_rng(0)
    noisy = BoxSegmenter(StandIn(), keep_masks=True)
    assert determinism.order_matters(lambda boxes: noisy.segment_picture(noise(dice), boxes, "US"), BOXES)


def shifted(decoded, offset):
    return decoded._replace(mask_logits=decoded.mask_logits + np.float32(offset))


def noise(dice):
    return dice.integers(0, 256, (60, 90), np.uint8)
