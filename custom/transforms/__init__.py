"""MONAI dictionary transforms of MCP-MedSAM."""

from custom.transforms.affine import RandAffineMasksd
from custom.transforms.boxes import tight_boxes
from custom.transforms.clip_features import LoadClipFeatured
from custom.transforms.dictionary import (
    Boxd,
    CropBoxesd,
    LoadSliced,
    PickMasksd,
    RandBoxd,
    RestoreMasksd,
    ToFramed,
)
from custom.transforms.masks import masks_to_frame
from custom.transforms.modality import RandUnknownModalityd
from custom.transforms.views import RandViewsd, Viewsd

__all__ = [
    "Boxd",
    "CropBoxesd",
    "LoadClipFeatured",
    "LoadSliced",
    "PickMasksd",
    "RandAffineMasksd",
    "RandBoxd",
    "RandUnknownModalityd",
    "RandViewsd",
    "RestoreMasksd",
    "ToFramed",
    "Viewsd",
    "masks_to_frame",
    "tight_boxes",
]
