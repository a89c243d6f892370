"""Scores of binary masks."""

from custom.metrics.mask_scores import dice_score, surface_dice

__all__ = ["dice_score", "surface_dice"]
