"""Malformed manifests of pictures and NIfTI volumes, and what they list."""

import json
import os
import struct
import zlib

import nibabel as nib
import numpy as np
from PIL import Image

from tests.data_prep.malformed.inputs import AFFINE, GREY, LABEL, REPAIRED, SKIPPED, VOLUME, VOLUME_LABEL, cut, then


def png_bomb(path):
    """Write a PNG whose header declares 100,000 x 100,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))))


def manifest_line(root, case="bad", **fields):
    line = {"image": f"{case}.png", "label": f"{case}.label.png", "modality": "US", "dataset": "Set", "split": "train"}
    line |= {"case": case, "labels": {"1": "tumor"}} | fields
    with (root / "US" / "manifest.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def manifest_good(root):
    (root / "US").mkdir()
    picture("good")(root)
    return {}


def picture(case="bad", image=GREY, label=LABEL, **fields):
    def add(root):
        for name, array in (("png", image), ("label.png", label)):
            Image.fromarray(array).save(root / "US" / f"{case}.{name}")
        manifest_line(root, case, **fields)
        return root / "US" / f"{case}.png"

    return add


def volume(image=VOLUME, label=VOLUME_LABEL, affine=AFFINE, label_affine=AFFINE):
    def add(root):
        for name, array, matrix in (("bad.nii.gz", image, affine), ("bad.label.nii.gz", label, label_affine)):
            nib.save(nib.Nifti1Image(array, matrix), root / "US" / name)
        manifest_line(root, image="bad.nii.gz", label="bad.label.nii.gz", modality="MR")
        return root / "US" / "bad.nii.gz"

    return add


def line(text):
    def add(root):
        with (root / "US" / "manifest.jsonl").open("ab") as file:
            file.write(text + b"\n")

    return add


def flat(path):
    """Make the third row of the affine zero."""
    image = nib.load(path)
    image.header["srow_z"], image.header["sform_code"] = 0, 1
    content = bytearray(image.header.binaryblock) + bytes(4) + np.asarray(image.dataobj).tobytes(order="F")
    path.with_suffix("").write_bytes(content)
    path.unlink()
    os.rename(path.with_suffix(""), path.with_name("flat.nii"))
    manifest = path.parent / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace("bad.nii.gz", "flat.nii"))


MANIFEST = [
    ("invalid JSON", line(b"{"), SKIPPED, r"manifest\.jsonl:2: line: found invalid JSON"),
    ("no object", line(b"[1]"), SKIPPED, r"manifest\.jsonl:2: line: found list"),
    ("no UTF-8", line(b'{"image": "\xff\xfe'), SKIPPED, r"manifest\.jsonl:2: line"),
    ("missing field", picture(dataset=None), SKIPPED, r":2: dataset: found None"),
    ("number as path", picture(image=GREY, case="bad", split=3), SKIPPED, r":2: split: found 3"),
    ("unknown split", picture(split="test"), SKIPPED, r"split: found 'test'"),
    ("unknown modality", picture(modality="SPECT"), SKIPPED, r"modality: found 'SPECT'"),
    ("no labels", picture(labels={}), SKIPPED, r"labels: found \{\}"),
    ("background as label", picture(labels={"0": "background"}), SKIPPED, r"labels: found '0'"),
    ("unknown label type", picture(label_type="panoptic"), SKIPPED, r"label_type: found 'panoptic'"),
    ("other ids only", picture(labels={"7": "stone"}), SKIPPED, r"label: found only ids \[1\]"),
    ("missing image", then(picture(), lambda p: p.unlink()), SKIPPED, r"bad\.png: image: found no such file"),
    ("image is a folder", then(picture(), lambda p: (p.unlink(), p.mkdir())), SKIPPED, r"bad\.png: series"),
    ("zero byte in a path", lambda r: manifest_line(r, image="a\0b.png"), SKIPPED, r"a.b\.png"),
    ("path of 5,000 letters", lambda r: manifest_line(r, image="x" * 5000 + ".png"), SKIPPED, r"xxx"),
    ("truncated PNG", then(picture(), cut), SKIPPED, r"bad\.png: file: found OSError"),
    (
        "truncated label",
        then(picture(), lambda p: cut(p.with_suffix(".label.png"), 70)),
        SKIPPED,
        r"bad\.label\.png: file",
    ),
    ("text as PNG", then(picture(), lambda p: p.write_text("no picture")), SKIPPED, r"bad\.png: file"),
    ("decompression bomb", then(picture(), png_bomb), SKIPPED, r"bad\.png: (size|file)"),
    ("colour label", picture(label=np.dstack([LABEL] * 3)), SKIPPED, r"bad\.label\.png: label: found 3 channels"),
    ("label of 4 channels", picture(label=np.dstack([LABEL] * 4)), SKIPPED, r"label: found 4 channels"),
    ("other sizes", picture(label=LABEL.T.copy()), SKIPPED, r"bad\.label\.png: label: found shape \(1, 48, 32\)"),
    ("one name twice", lambda r: (picture("x y")(r), picture("x_y")(r)), SKIPPED, r"2 cases named 'US_Set_x_y'"),
    ("truncated NIfTI", then(volume(), cut), SKIPPED, r"bad\.nii\.gz: file: found"),
    ("text as NIfTI", then(volume(), lambda p: p.write_text("no volume")), SKIPPED, r"bad\.nii\.gz: file"),
    ("4D NIfTI", volume(image=np.stack([VOLUME] * 2, -1)), SKIPPED, r"bad\.nii\.gz: frame: found .*4D with 2 volumes"),
    ("complex NIfTI", volume(image=VOLUME.astype(np.complex64)), SKIPPED, r"dtype: found complex64"),
    ("flat affine", then(volume(), flat), SKIPPED, r"flat\.nii"),
    (
        "label shifted",
        volume(label_affine=AFFINE + np.eye(4)[:, :1] * np.eye(4)[3] * 9),
        SKIPPED,
        r"affine: found a mism",
    ),
    ("label of another size", volume(label=VOLUME_LABEL[:9]), SKIPPED, r"bad\.label\.nii\.gz: shape"),
    ("label of fractions", volume(label=VOLUME_LABEL.astype(np.float32) / 2), SKIPPED, r"fractions"),
    ("negative ids", volume(label=-VOLUME_LABEL.astype(np.int16)), SKIPPED, r"id -1"),
    ("empty volume label", volume(label=VOLUME_LABEL * 0), SKIPPED, r"no foreground"),
    ("NaN voxels", volume(image=np.where(VOLUME > 9, VOLUME, np.nan).astype(np.float32)), REPAIRED, ""),
    ("real label of whole ids", volume(label=VOLUME_LABEL.astype(np.float32)), REPAIRED, ""),
    ("constant volume", volume(image=VOLUME * 0), REPAIRED, ""),
    ("RGBA picture", picture(image=np.dstack([GREY, GREY // 2, GREY, GREY])), REPAIRED, ""),
    ("16-bit picture", picture(image=GREY.astype(np.uint16) * 200), REPAIRED, ""),
    ("16-bit label", picture(label=LABEL.astype(np.uint16)), REPAIRED, ""),
    ("blank lines", lambda r: (line(b"\n \n")(r), picture()(r)), REPAIRED, ""),
]
