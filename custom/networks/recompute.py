"""Save memory in training: compute activations again for the gradient instead of keeping them (gradient checkpointing).

Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016, https://arxiv.org/abs/1604.06174, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return ``module(x)``, storing only ``x`` for the backward pass.

    Output, gradients and BatchNorm's running statistics are those of ``module(x)``.
    """
    return checkpoint(module, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(module)))


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Keep BatchNorm's running statistics unchanged: the second pass would count the same batch again."""
    norms = [part for part in module.modules() if isinstance(part, (nn.BatchNorm2d, nn.SyncBatchNorm))]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)
