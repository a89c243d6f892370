"""The training loss of MCP-MedSAM: Equations 1-8 of Lyu et al., MELBA 2025."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from custom.errors import InputError
from custom.modalities import UNKNOWN_MODALITY


class MCPMedSAMLoss(nn.Module):
    """Weighted sum of the mask, IoU, modality and contrastive losses.

    The mask loss is BCE + Dice (Eq. 2-3; Dice with squared sums in the denominator), both as a mean over masks; the
    IoU loss is a mean squared error (Eq. 4), the modality loss a cross entropy (Eq. 5) and the contrastive loss the
    symmetric cross entropy of CLIP without temperature (Eq. 6-8). Everything is computed in float32, also under
    autocast. Source: MCP-MedSAM, Lyu et al., MELBA 2025, Section 3.2.4.

    Args:
        mask: lambda_1, weight of BCE + Dice.
        iou: lambda_2, weight of the IoU loss.
        modality: lambda_3, weight of the modality classification loss.
        contrastive: lambda_4, weight of the contrastive loss.

    Attributes:
        terms: the unweighted terms of the last call, detached scalars, under those of "bce", "dice", "iou",
            "modality" and "contrastive" that were computed.
    """

    def __init__(
        self,
        *,
        mask: float = 1.0,
        iou: float = 1.0,
        modality: float = 0.01,
        contrastive: float = 0.01,
    ) -> None:
        super().__init__()
        self.weights = {
            "bce": mask,
            "dice": mask,
            "iou": iou,
            "modality": modality,
            "contrastive": contrastive,
        }
        self.dice = DiceLoss(sigmoid=True, squared_pred=True)
        self.terms: dict[str, Tensor] = {}

    def forward(self, output: Any, target: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum (Eq. 1), a float32 scalar.

        Args:
            output: the network's output: ``mask_logits`` (B, N, H, W), ``iou`` (B, N), and, ``None``
                if their prompt is off, ``modality_logits`` (B*N, modalities), ``sparse_content`` (B*N, C) and
                ``dense_content`` (B*N, C). A term whose input is ``None`` is omitted.
            target: ``"label"`` (B, N, H, W) with values {0, 1} and ``"modality"`` (B,) of class indices, -1 where
                unknown (such images do not count in the modality loss, which is 0 if none is known).

        Raises:
            InputError: the label's shape is not that of the mask logits.
        """
        logits = output.mask_logits
        label = convert_to_tensor(target["label"], dtype=torch.float32, track_meta=False)
        if label.shape != logits.shape:
            raise InputError("MCPMedSAMLoss", "label shape", tuple(label.shape), f"mask logits {tuple(logits.shape)}")

        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            terms = {
                "bce": F.binary_cross_entropy_with_logits(logits, label),
                "dice": self.dice(logits, label),
                "iou": F.mse_loss(output.iou.float(), mask_iou(logits, label)),
            }
            if output.modality_logits is not None:
                modality = target["modality"].repeat_interleave(logits.shape[1])  # B -> B*N
                terms["modality"] = _modality_loss(output.modality_logits.float(), modality)
            if output.sparse_content is not None and output.dense_content is not None:
                terms["contrastive"] = _contrastive_loss(output.sparse_content.float(), output.dense_content.float())
            total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()

        self.terms = {name: term.detach() for name, term in terms.items()}
        return total

    def log(self, _: object = None) -> dict[str, float]:
        """Return "loss" and the unweighted terms of the last call as floats; this waits for the device.

        The argument is not used: MONAI's handlers call an ``output_transform`` with the engine's output.
        """
        if not self.terms:
            return {}
        values = dict(zip(self.terms, torch.stack(list(self.terms.values())).tolist(), strict=True))
        return {"loss": sum(self.weights[name] * value for name, value in values.items()), **values}


@torch.no_grad()
def mask_iou(logits: Tensor, label: Tensor) -> Tensor:
    """Return the IoU of masks (logit > 0) and labels {0, 1}, BxNxHxW -> BxN in [0, 1]; 1 where both are empty."""
    pred, label = logits > 0, label > 0.5
    union = (pred | label).sum(dim=(-2, -1))
    iou = (pred & label).sum(dim=(-2, -1)) / union.clamp(min=1)
    return torch.where(union == 0, torch.ones_like(iou), iou)


def _modality_loss(logits: Tensor, modality: Tensor) -> Tensor:
    """Eq. 5 as a mean over the rows whose modality is known; PyTorch's mean would be NaN if none is."""
    known = (modality != UNKNOWN_MODALITY).sum().clamp(min=1)
    return F.cross_entropy(logits, modality, ignore_index=UNKNOWN_MODALITY, reduction="sum") / known


def _contrastive_loss(sparse: Tensor, dense: Tensor) -> Tensor:
    """Eq. 6-8: row i of one side belongs to row i of the other, RxC and RxC -> scalar."""
    similarity = F.normalize(dense, dim=1) @ F.normalize(sparse, dim=1).T  # RxC, CxR -> RxR
    rows = torch.arange(len(similarity), device=similarity.device)
    return (F.cross_entropy(similarity, rows) + F.cross_entropy(similarity.T, rows)) / 2
