"""MCP-MedSAM for MONAI: networks, transforms, data, losses, metrics, handlers and inference."""

__version__ = "0.1.0"
