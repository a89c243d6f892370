"""Segment pictures, volumes and folders of files by boxes."""

from custom.inference.npz import NpzDataset, PrepareCase, SaveSegsd, npz_modality, read_npz_case
from custom.inference.overlay import draw_overlay
from custom.inference.segmenter import BoxSegmenter, Segmentation, as_uint8

__all__ = [
    "BoxSegmenter",
    "NpzDataset",
    "PrepareCase",
    "SaveSegsd",
    "Segmentation",
    "as_uint8",
    "draw_overlay",
    "npz_modality",
    "read_npz_case",
]
