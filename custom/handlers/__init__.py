"""Ignite metrics and MONAI handlers of MCP-MedSAM."""

from custom.handlers.modality_metrics import ModalityMetric, ModalityReport

__all__ = ["ModalityMetric", "ModalityReport"]
