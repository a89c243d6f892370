"""MONAI dictionary transforms of MCP-MedSAM."""

from custom.transforms.boxes import check_boxes, tight_boxes
from custom.transforms.dictionary import (
    Boxd,
    CropBoxesd,
    LoadSliced,
    PickMasksd,
    RandBoxd,
    RestoreMasksd,
    ToFramed,
)
from custom.transforms.frame import Frame, crop_box, resize

__all__ = [
    "Boxd",
    "CropBoxesd",
    "Frame",
    "LoadSliced",
    "PickMasksd",
    "RandBoxd",
    "RestoreMasksd",
    "ToFramed",
    "check_boxes",
    "crop_box",
    "resize",
    "tight_boxes",
]
