"""Deal out the items of an evaluation to the processes."""

from __future__ import annotations

import torch.distributed as dist


def rank_share(*, length: int) -> range:
    """Return this process' indices of ``length`` items: each goes to one process, none is repeated.

    With fewer items than processes some get an item twice, since an engine without items would not take part in
    gathering the scores; ``ModalityMetric`` counts it once.
    """
    world = dist.get_world_size()
    return range(dist.get_rank() % length, length, world)
