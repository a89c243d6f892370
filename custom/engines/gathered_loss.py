"""The training loss over the batches of all processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from custom.losses import MCPMedSAMLoss


class GatheredMCPMedSAMLoss(MCPMedSAMLoss):
    """``MCPMedSAMLoss`` as one process with the batches of all processes would compute it; all must call it.

    The contrastive loss compares every row with every other, so the rows of all processes are gathered with their
    gradients. The other terms are means over batches of equal size, so averaging the gradients (as
    ``DistributedDataParallel`` does) is already right. ``terms`` are the means over the processes.
    """

    def forward(self, output: Any, target: Mapping[str, Tensor]) -> Tensor:
        """As ``MCPMedSAMLoss.forward``; returns the value of this process's batch."""
        if output.sparse_content is not None and output.dense_content is not None:
            output = output._replace(
                sparse_content=torch.cat(all_gather(output.sparse_content.float())),  # RxC -> (world * R)xC
                dense_content=torch.cat(all_gather(output.dense_content.float())),
            )
        total = super().forward(output, target)
        mean = torch.stack(list(self.terms.values()))
        dist.all_reduce(mean)
        self.terms = dict(zip(self.terms, mean / dist.get_world_size(), strict=True))
        return total
