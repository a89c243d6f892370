"""Images and boxes at the limits; the precisions are compared in the long part."""

import numpy as np
import pytest

from custom.inference.torch_backend import TorchBackend
from tests.reliability import numerics
from tests.reliability.inputs import scene
from tests.reliability.numerics import Cost
from tests.reliability.stand_in import StandIn


@pytest.mark.parametrize("shape", [*numerics.PICTURES, (1, 1, 1), (2, 3, 150), (12, 40, 20)])
def test_sizes_and_boxes_at_the_limits(shape):
    boxes = numerics.boxes_at_limits(shape)
    assert numerics.check_segmentation(StandIn(), scene(shape), boxes) == []


def test_real_network_at_the_limits(lively_network):
    boxes = numerics.boxes_at_limits((1, 50))[:4]
    assert numerics.check_segmentation(TorchBackend(lively_network), scene((1, 50)), boxes) == []


def test_values_at_the_limits():
    found = dict(numerics.check_values(StandIn(), (60, 80)))
    assert len(found) == 12 and not any(found.values()), found


def test_time_and_memory_in_proportion():
    costs = {shape: numerics.cost_of(StandIn(), shape) for shape in ((512, 512), (1024, 1024))}
    assert all(cost.seconds > 0 for cost in costs.values())
    assert costs[1024, 1024].megabytes < 60  # 1 million pixels


def test_what_is_wrong_is_found():
    class Broken(StandIn):
        def decode(self, *given):
            decoded = super().decode(*given)
            return decoded._replace(iou=decoded.iou * np.nan)

    boxes = np.array([[0, 0, 5, 5]], float)
    (found,) = numerics.check_segmentation(Broken(), scene((8, 8)), boxes)
    assert "found NaN or infinite values" in found
    costs = {(1000, 1000): Cost(1.0, 10.0), (2000, 2000): Cost(16.0, 40.0)}
    assert numerics.out_of_proportion(costs, above=1000) == [
        "seconds: a pixel of (2000, 2000) takes 4.0 times one of (1000, 1000)"
    ]
