"""The learning rate of the paper (Section 4.1)."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def step_decay_then_final(
    optimizer: Optimizer, *, epochs: int, final_lr: float, factor: float = 0.9, every: int = 5
) -> LambdaLR:
    """Multiply the learning rate by ``factor`` every ``every`` epochs; the last of several epochs runs at ``final_lr``.

    Args:
        optimizer: the optimizer, at its first learning rate.
        epochs: number of epochs.
        final_lr: learning rate of the last epoch.
        factor: factor of one step.
        every: epochs between steps.
    """

    def scale(first_lr: float, epoch: int) -> float:
        return final_lr / first_lr if 0 < epoch == epochs - 1 else factor ** (epoch // every)

    first_lrs = [group["lr"] for group in optimizer.param_groups]
    return LambdaLR(optimizer, [lambda epoch, lr=lr: scale(lr, epoch) for lr in first_lrs])
