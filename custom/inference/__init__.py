"""Segment pictures, volumes and folders of files by boxes; PyTorch is imported only if the backend needs it."""
