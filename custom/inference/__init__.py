"""Segment pictures, volumes and folders of files by boxes; nothing here needs PyTorch until a backend does."""
