"""MCP-MedSAM for MONAI: networks, transforms, data, losses, metrics, handlers and inference.

``from custom import Predictor, Session, read_image`` is all that segmenting images takes.
"""

from custom.public_names import __getattr__

__all__ = ["Predictor", "Session", "__getattr__", "read_image"]
