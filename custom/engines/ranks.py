"""Distribute the items of an evaluation over the processes."""

from __future__ import annotations

import torch.distributed as dist


def rank_share(*, length: int) -> range:
    """Return this process's indices of ``length`` items: each item goes to exactly one process.

    With fewer items than processes some get an item twice, because an engine without items would not take part in
    gathering the scores; ``ModalityMetric`` counts such an item once.
    """
    world = dist.get_world_size()
    return range(dist.get_rank() % length, length, world)
