"""MCP-MedSAM for MONAI: networks, transforms, data, losses, metrics, handlers and inference.

``from custom import Predictor, read_image`` is all that segmenting an image takes.
"""

from custom.public_names import __getattr__

__all__ = ["Predictor", "__getattr__", "read_image"]
