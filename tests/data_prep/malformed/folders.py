"""Malformed folders of NIfTI volumes, and of pictures with masks."""

import nibabel as nib
import numpy as np
from PIL import Image

from tests.data_prep.malformed.inputs import AFFINE, GREY, IGNORED, LABEL, REPAIRED, SKIPPED, VOLUME, VOLUME_LABEL, cut


def nifti_good(root):
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    nifti("good")(root)
    return {"modality": "MR"}


def nifti(name, image=VOLUME, label=VOLUME_LABEL, suffix=""):
    def add(root):
        for folder, array, ending in (("images", image, ""), ("labels", label, suffix)):
            if array is not None:
                nib.save(nib.Nifti1Image(array, AFFINE), root / folder / f"{name}{ending}.nii.gz")

    return add


NIFTI = [
    ("no label", nifti("bad", label=None), SKIPPED, r"bad\.nii\.gz: pair: found 1 in images and 0 in labels"),
    ("no image", nifti("bad", image=None), SKIPPED, r"bad\.nii\.gz: pair: found 0 in images and 1 in labels"),
    ("two labels", lambda r: (nifti("bad")(r), nifti("bad", None, suffix="_seg")(r)), SKIPPED, r"1 in images and 2 in"),
    ("cut off", lambda r: (nifti("bad")(r), cut(r / "images" / "bad.nii.gz")), SKIPPED, r"images/bad\.nii\.gz: file"),
    ("4D label", nifti("bad", label=np.stack([VOLUME_LABEL] * 2, -1)), SKIPPED, r"labels/bad\.nii\.gz: frame"),
    ("notes beside", lambda r: (r / "images" / "notes.txt").write_text("x"), IGNORED, ""),
]


def images_good(root):
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    mask("good")(root)
    return {"modality": "Dermoscopy"}


def mask(name, image=GREY, label=LABEL, ending="png"):
    def add(root):
        for folder, array, kind in (("images", image, "png"), ("masks", label, ending)):
            if array is not None:
                Image.fromarray(array).save(root / folder / f"{name}.{kind}")

    return add


IMAGES = [
    ("no mask", mask("bad", label=None), SKIPPED, r"images/bad\.png: mask: found none"),
    ("no image", mask("bad", image=None), SKIPPED, r"masks/bad\.png: image: found none"),
    ("other sizes", mask("bad", label=LABEL[:9]), SKIPPED, r"masks/bad\.png: mask: found shape"),
    ("empty mask", mask("bad", label=LABEL * 0), SKIPPED, r"masks/bad\.png: label: found no foreground"),
    ("cut off", lambda r: (mask("bad")(r), cut(r / "masks" / "bad.png", 70)), SKIPPED, r"masks/bad\.png: file"),
    (
        "broken TIFF",
        lambda r: (mask("bad")(r), (r / "masks" / "bad.png").rename(r / "masks" / "bad.tif")),
        SKIPPED,
        "bad",
    ),
    ("a photograph as mask", mask("bad", label=np.dstack([GREY, GREY.max() - GREY, GREY // 2])), SKIPPED, "colours"),
    ("JPEG mask", mask("bad", label=LABEL * 255, ending="jpg"), REPAIRED, ""),
    ("grey RGB mask", mask("bad", label=np.dstack([LABEL * 255] * 3)), REPAIRED, ""),
]
