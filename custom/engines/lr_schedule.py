"""The learning rates of a training, by layer and by time (MCP-MedSAM, Section 4.1)."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from custom.networks.embedding import EMBEDDING_WIDTH
from custom.networks.mcp_medsam import CORRECTION, REFINEMENT, is_new_branch

_CLASSIFIER = "mask_decoder.modality_head."


def parameter_groups(
    network: nn.Module, *, lr: float, new_branch_lr: float, scaling: bool = True, refinement_lr: float | None = None
) -> list[dict[str, object]]:
    """Split the trainable parameters into what LiteMedSAM has and what MCP-MedSAM adds to it, by learning rate.

    The new branches start from zero weights. Adam's first steps move every weight by the learning rate, whatever the
    size of the gradient, so the output of a zero layer moves by the rate times the number of its inputs. A convolution
    over thousands of inputs then exceeds the signal it is added to by far, and LiteMedSAM's accuracy is lost within
    two steps. With ``scaling``, layers with more inputs than the network is wide learn slower in that proportion. The
    modality classifier is new as well, but no mask depends on it: it learns at the full rate.

    Args:
        network: an ``MCPMedSAM``.
        lr: learning rate of the layers LiteMedSAM has, and of the classifier.
        new_branch_lr: learning rate of the other new layers.
        scaling: multiply it by 256 / inputs in layers with more inputs, e.g. by 1/9 in the decoder's 3x3 convolutions;
            False with ``new_branch_lr`` as ``lr`` is the paper's single rate.
        refinement_lr: learning rate of mask refinement and correction, which are small and start from nothing; ``lr``
            by default.
    """
    groups: dict[float, list[nn.Parameter]] = {lr: []}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = lr
            if name.startswith((REFINEMENT, CORRECTION)):
                rate = lr if refinement_lr is None else refinement_lr
            elif is_new_branch(name) and not name.startswith(_CLASSIFIER):
                rate = new_branch_lr * (min(1.0, EMBEDDING_WIDTH / _inputs(parameter)) if scaling else 1.0)
            groups.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]


def _inputs(parameter: nn.Parameter) -> int:
    """Return the number of inputs a layer with these weights sums up: OxI -> I, OxIxHxW -> I * H * W, a bias 1."""
    return parameter[0].numel() if parameter.ndim > 1 else 1


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

    The schedule is stepped once per iteration. All groups keep their ratios.

    Args:
        optimizer: the optimizer, at its first learning rates.
        epochs: number of epochs.
        iterations_per_epoch: iterations in an epoch.
        final_lr: learning rate of the last epoch, for the first group.
        factor: factor of one step.
        every: epochs between steps.
        warmup: iterations over which the rates rise linearly from zero.
    """
    final = final_lr / optimizer.param_groups[0]["lr"]

    def scale(iteration: int) -> float:
        epoch = iteration // iterations_per_epoch
        rise = min(1.0, (iteration + 1) / warmup) if warmup else 1.0
        return rise * (final if 0 < epoch == epochs - 1 else factor ** (epoch // every))

    return LambdaLR(optimizer, scale)
