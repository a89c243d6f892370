import pytest
import torch

from custom.engines import AutocastInferer


@pytest.mark.parametrize(("enabled", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_precision_of_the_network(enabled, dtype):
    network = torch.nn.Linear(3, 2)
    assert AutocastInferer(enabled=enabled)(torch.zeros(1, 3), network).dtype == dtype  # 1x3 -> 1x2


def test_arguments_reach_the_network():
    found = AutocastInferer()(torch.ones(1), lambda x, *args, **kwargs: (x, args, kwargs), 2, boxes=3)
    assert found == (torch.ones(1), (2,), {"boxes": 3})
