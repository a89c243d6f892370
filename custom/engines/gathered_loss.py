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
    """``MCPMedSAMLoss`` as one process with the batches of all would see it; all have to call it.

    The contrastive loss compares every row with every other, so the rows of all processes are put together, with
    their gradients. The other terms are means over equal batches, which averaging the gradients (as
    ``DistributedDataParallel`` does) makes right. ``terms`` are the means over the processes.
    """

    def forward(self, output: Any, target: Mapping[str, Tensor]) -> Tensor:
        """As ``MCPMedSAMLoss.forward``; the value returned is that of this process' batch."""
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
