"""Weights: read, checked, converted between layouts, and started from."""

from custom.checkpoints.load_weights import start_network
from custom.checkpoints.loading import LoadReport, load_checkpoint

__all__ = ["LoadReport", "load_checkpoint", "start_network"]
