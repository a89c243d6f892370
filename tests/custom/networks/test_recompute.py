import copy

import pytest
import torch
from torch import nn

from custom.networks.encoders.tiny_vit import TinyViT
from custom.networks.recompute import recompute


def kept_bytes(function):
    """Call it; return the result and the bytes kept for its gradient."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    return result, sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.fixture
def deterministic():
    """Otherwise the order of sums over indices depends on the threads."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_encoder_learns_the_same_and_keeps_less(bfloat16, deterministic):
    torch.manual_seed(0)
    plain = TinyViT(widths=(8, 16, 20, 40), depths=(1, 1, 1, 1), heads=(1, 1, 1, 2)).train()
    thrifty = copy.deepcopy(plain)
    thrifty.recompute = True
    images = torch.rand(2, 2, 3, 256, 256)
    sizes = []
    for network in (plain, thrifty):
        for image in images:
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                embedding, size = kept_bytes(lambda network=network, image=image: network(image))
            embedding.float().square().mean().backward()
        sizes.append(size)
    assert sizes[1] < 0.4 * sizes[0]
    for (name, expected), found in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        assert torch.equal(found.grad, expected.grad), name
    for (name, expected), found in zip(plain.named_buffers(), thrifty.buffers(), strict=True):
        assert torch.equal(found, expected), name  # running statistics and their counters, after two batches


def test_statistics_are_tracked_again_after_an_error():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.calls = nn.BatchNorm2d(2), 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 2:
                raise RuntimeError("out of memory")
            return self.norm(x).square()

    module = Fails().train()
    y = recompute(module, torch.rand(1, 2, 4, 4, requires_grad=True))
    with pytest.raises(RuntimeError, match="out of memory"):
        y.sum().backward()
    assert module.norm.momentum == 0.1
