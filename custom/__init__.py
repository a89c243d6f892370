"""MCP-MedSAM for MONAI: networks, transforms, data, losses, metrics, handlers and inference."""
