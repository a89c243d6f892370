"""The learning rates of a training: who learns how fast, and when (MCP-MedSAM, Section 4.1)."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from custom.networks.mcp_medsam import is_new_branch

_CLASSIFIER = "mask_decoder.modality_head."


def parameter_groups(network: nn.Module, *, lr: float, new_branch_lr: float) -> list[dict[str, object]]:
    """Split the trainable parameters into what LiteMedSAM has and what MCP-MedSAM adds to it.

    The new branches start from zero weights. Adam's first steps move every weight by the learning rate, whatever the
    gradient's size, so a zero convolution over thousands of inputs overshoots by far more than the signal it is added
    to, and LiteMedSAM's accuracy is lost within two steps; at a fiftieth of the rate it is kept. The modality
    classifier is new, too, but no mask depends on it: it learns at the full rate.

    Args:
        network: an ``MCPMedSAM``.
        lr: learning rate of the layers LiteMedSAM has, and of the classifier.
        new_branch_lr: learning rate of the other layers it has not; ``lr`` gives the paper's single rate.
    """
    groups: dict[float, list[nn.Parameter]] = {lr: [], new_branch_lr: []}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            slow = is_new_branch(name) and not name.startswith(_CLASSIFIER)
            groups[new_branch_lr if slow else lr].append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]


def step_decay_then_final(
    optimizer: Optimizer,
    *,
    epochs: int,
    iterations_per_epoch: int,
    final_lr: float,
    factor: float = 0.9,
    every: int = 5,
    warmup: int = 0,
) -> LambdaLR:
    """Multiply the rates by ``factor`` every ``every`` epochs; the last of several epochs runs at ``final_lr``.

    The schedule is stepped once an iteration. All groups keep their ratios.

    Args:
        optimizer: the optimizer, at its first learning rates.
        epochs: number of epochs.
        iterations_per_epoch: iterations in an epoch.
        final_lr: learning rate of the last epoch, for the group with the highest rate.
        factor: factor of one step.
        every: epochs between steps.
        warmup: iterations over which the rates rise linearly from zero.
    """
    final = final_lr / max(group["lr"] for group in optimizer.param_groups)

    def scale(iteration: int) -> float:
        epoch = iteration // iterations_per_epoch
        rise = min(1.0, (iteration + 1) / warmup) if warmup else 1.0
        return rise * (final if 0 < epoch == epochs - 1 else factor ** (epoch // every))

    return LambdaLR(optimizer, scale)
