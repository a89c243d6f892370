"""Malformed input through the command line: it is named, what is good beside it is prepared, the exit code tells.

Every entry of a table adds something bad to a folder that holds one good case. ``SKIPPED`` entries are refused,
``LEFT_OUT`` ones have only masks that are too small, ``REPAIRED`` ones are prepared, and ``IGNORED`` ones are no input.
"""

import errno
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from custom import files
from custom.data.prepared import load_dataset
from custom.images.dicom import read_series
from custom.images.dicom_labels import write_seg

ROOT = Path(__file__).resolve().parents[2]
CT = Path(get_testdata_file("dicomdirtests/DICOMDIR")).parent / "98892001" / "CT5N"
RNG = np.random.default_rng(0)
SKIPPED, LEFT_OUT, REPAIRED, IGNORED = "skipped", "left out", "repaired", "ignored"

GREY = RNG.integers(0, 256, (32, 48), np.uint8)
LABEL = np.zeros((32, 48), np.uint8)
LABEL[4:14, 6:16] = 1
VOLUME = RNG.integers(0, 900, (12, 10, 6)).astype(np.int16)
VOLUME_LABEL = np.zeros((12, 10, 6), np.uint8)
VOLUME_LABEL[2:8, 2:8, 1:5] = 1
AFFINE = np.diag((2.0, 2.0, 3.0, 1.0))


def cut(path, size=None):
    path.write_bytes(path.read_bytes()[: size or path.stat().st_size // 2])


def png_bomb(path):
    """Write a PNG whose header declares 100,000 x 100,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))))


# --- .npz files of the challenge ---


def npz_good(root):
    np.savez(root / "2D_US_good.npz", imgs=GREY, gts=LABEL)
    return {}


def npz(name="2D_US_bad", imgs=GREY, gts=LABEL, **more):
    """Return a function that writes one file."""

    def add(root):
        arrays = {"imgs": imgs, "gts": gts} | more
        path = root / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
        return path

    return add


def then(add, *changes):
    def run(root):
        path = add(root)
        for change in changes:
            change(path)

    return run


MANY = np.kron(np.arange(1, 257 * 256 + 1, dtype=np.int32).reshape(257, 256), np.ones((4, 4), np.int32))
HOLES = np.full((32, 48), 9.0)
HOLES[0, 0] = np.nan
NPZ = [
    ("cut off", then(npz(), cut), SKIPPED, r"2D_US_bad\.npz: file: found BadZipFile"),
    ("empty file", then(npz(), lambda p: p.write_bytes(b"")), SKIPPED, r"2D_US_bad\.npz: file: found BadZipFile"),
    ("text", then(npz(), lambda p: p.write_text("no archive")), SKIPPED, r"bad\.npz: file"),
    ("one bit", then(npz(), lambda p: p.write_bytes(flipped(p))), SKIPPED, r"bad\.npz: file: found BadZipFile"),
    ("plain array", then(npz(), lambda p: p.write_bytes(npy_bytes())), SKIPPED, r"bad\.npz: file"),
    ("a folder", lambda root: (root / "2D_US_bad.npz").mkdir(), SKIPPED, r"bad\.npz: file: found no such file"),
    ("dangling link", lambda root: (root / "2D_US_bad.npz").symlink_to("none"), SKIPPED, r"bad\.npz: file"),
    ("pickled image", npz(imgs=np.array([{}], object)), SKIPPED, r"allow_pickle=False"),
    ("pickled label", npz(gts=np.array([[1, None]], object)), SKIPPED, r"allow_pickle=False"),
    ("no label", npz(gts=None), SKIPPED, r"gts: found only imgs"),
    ("no image", npz(imgs=None), SKIPPED, r"imgs: found only gts"),
    ("NaN", npz(imgs=HOLES), SKIPPED, r"image: found NaN"),
    ("infinite", npz(imgs=HOLES * np.inf), SKIPPED, r"image: found NaN or infinite"),
    ("complex", npz(imgs=GREY + 1j), SKIPPED, r"dtype complex128"),
    ("text image", npz(imgs=GREY.astype(str)), SKIPPED, r"image: found dtype <U3"),
    ("two channels", npz(imgs=np.dstack([GREY] * 2)), SKIPPED, r"image: found shape"),
    ("four axes", npz("3D_MR_bad", imgs=GREY[None, None], gts=LABEL[None]), SKIPPED, r"imgs: found shape"),
    ("other sizes", npz(gts=LABEL[:20]), SKIPPED, r"label: found shape \(1, 20, 48\)"),
    ("zero size", npz(imgs=GREY[:0], gts=LABEL[:0]), SKIPPED, r"2D_US_bad\.npz: label: found no foreground"),
    ("no foreground", npz(gts=LABEL * 0), SKIPPED, r"label: found no foreground"),
    ("fractions", npz(gts=LABEL * 0.5), SKIPPED, r"label: found fractions"),
    ("NaN label", npz(gts=LABEL * np.nan), SKIPPED, r"label: found fractions or NaN"),
    ("negative id", npz(gts=-LABEL.astype(np.int16)), SKIPPED, r"label: found id -1"),
    ("text label", npz(gts=LABEL.astype(str)), SKIPPED, r"label: found dtype <U3"),
    ("65,792 masks", npz("2D_Microscopy_bad", MANY.astype(np.uint8), MANY), SKIPPED, r"65792 masks"),
    ("unknown modality", npz("2D_SPECT_bad"), SKIPPED, r"modality: found 'SPECT'"),
    ("other file name", npz("US_bad"), SKIPPED, r"US_bad\.npz: file name"),
    ("volume as 2D", npz("3D_CT_bad"), SKIPPED, r"imgs: found shape \(32, 48\)"),
    ("spacing 0", npz("3D_CT_bad", GREY[None], LABEL[None], spacing=(1, 0, 1)), SKIPPED, r"spacing: found \[1, 0, 1\]"),
    ("spacing NaN", npz("3D_CT_bad", GREY[None], LABEL[None], spacing=(1, np.nan, 1)), SKIPPED, r"spacing: found"),
    ("two spacings", npz("3D_CT_bad", GREY[None], LABEL[None], spacing=(1, 1)), SKIPPED, r"spacing: found"),
    (
        "one name twice",
        lambda r: (npz()(r), npz("deep/2D_US_bad")(r)),
        SKIPPED,
        r"case: found 2 cases named '2D_US_bad'",
    ),
    ("too small", npz(gts=LABEL * (np.indices(LABEL.shape)[0] < 5)), LEFT_OUT, r"no mask of 16 px or more"),
    ("whole real ids", npz(gts=LABEL * 3.0), REPAIRED, ""),
    ("bool label", npz(gts=LABEL > 0), REPAIRED, ""),
    ("huge ids", npz(gts=LABEL.astype(np.uint64) << np.uint64(62)), REPAIRED, ""),
    ("bool image", npz(imgs=GREY > 99), REPAIRED, ""),
    ("alpha channel", npz(imgs=np.dstack([GREY, GREY // 2, GREY, GREY])), REPAIRED, ""),
    ("constant image", npz(imgs=np.full((32, 48), 7.0)), REPAIRED, ""),
    ("name beyond ASCII", npz("2D_US_Leberläsion_患者7"), REPAIRED, ""),
    ("long name", npz("2D_US_" + "x" * 240), REPAIRED, ""),
]


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    return bytes(content)


def npy_bytes():
    with tempfile.TemporaryFile() as file:
        np.save(file, GREY)
        file.seek(0)
        return file.read()


# --- manifests of pictures and NIfTI volumes ---


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
    ("no JSON", line(b"{"), SKIPPED, r"manifest\.jsonl:2: line: found no JSON"),
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
    ("missing image", then(picture(), lambda p: p.unlink()), SKIPPED, r"bad\.png: file: found no such file"),
    ("image is a folder", then(picture(), lambda p: (p.unlink(), p.mkdir())), SKIPPED, r"bad\.png: file"),
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
    ("4D NIfTI", volume(image=np.stack([VOLUME] * 2, -1)), SKIPPED, r"bad\.nii\.gz: shape: found \(12, 10, 6, 2\)"),
    ("complex NIfTI", volume(image=VOLUME.astype(np.complex64)), SKIPPED, r"dtype: found complex64"),
    ("flat affine", then(volume(), flat), SKIPPED, r"flat\.nii"),
    ("NaN voxels", volume(image=np.where(VOLUME > 9, VOLUME, np.nan).astype(np.float32)), SKIPPED, r"NaN"),
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
    ("real label of whole ids", volume(label=VOLUME_LABEL.astype(np.float32)), REPAIRED, ""),
    ("constant volume", volume(image=VOLUME * 0), REPAIRED, ""),
    ("RGBA picture", picture(image=np.dstack([GREY, GREY // 2, GREY, GREY])), REPAIRED, ""),
    ("16-bit picture", picture(image=GREY.astype(np.uint16) * 200), REPAIRED, ""),
    ("16-bit label", picture(label=LABEL.astype(np.uint16)), REPAIRED, ""),
    ("blank lines", lambda r: (line(b"\n \n")(r), picture()(r)), REPAIRED, ""),
]


# --- NIfTI sets ---


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
    ("4D label", nifti("bad", label=np.stack([VOLUME_LABEL] * 2, -1)), SKIPPED, r"labels/bad\.nii\.gz: shape"),
    ("notes beside", lambda r: (r / "images" / "notes.txt").write_text("x"), IGNORED, ""),
]


# --- pictures with masks ---


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


# --- COCO ---

SQUARE = [2, 2, 20, 2, 20, 20, 2, 20]


def coco_good(root):
    Image.fromarray(GREY).save(root / "good.png")
    images = [{"id": 1, "file_name": "good.png", "height": 32, "width": 48}]
    objects = [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [SQUARE]}]
    write_coco(root, {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "polyp"}]})
    return {"modality": "Endoscopy"}


def write_coco(root, content):
    (root / "coco.json").write_text(json.dumps(content))


def coco(file="bad.png", object_fields=(), **image_fields):
    def add(root):
        Image.fromarray(GREY).save(root / "bad.png")
        content = json.loads((root / "coco.json").read_text())
        content["images"].append({"id": 2, "file_name": file, "height": 32, "width": 48} | image_fields)
        thing = {"id": 2, "image_id": 2, "category_id": 1, "segmentation": [SQUARE]} | dict(object_fields)
        content["annotations"].append(thing)
        write_coco(root, content)

    return add


RUNS = {"size": [32, 48], "counts": [0, 99]}
COCO = [
    ("missing picture", coco("none.png"), SKIPPED, r"images\[1\]\.file_name: found 'none\.png'"),
    ("two points", coco(object_fields={"segmentation": [[1, 1, 5, 5]]}), SKIPPED, r"a polygon of 2 points"),
    ("odd coordinates", coco(object_fields={"segmentation": [SQUARE[:-1]]}), SKIPPED, r"segmentation: found"),
    ("far away", coco(object_fields={"segmentation": [[9e9, 0, 9e9, 9, 0, 9]]}), SKIPPED, r"coordinate 9e\+09"),
    ("runs too short", coco(object_fields={"segmentation": RUNS}), SKIPPED, r"runs of 99 pixels"),
    ("unknown category", coco(object_fields={"category_id": 7}), SKIPPED, r"category_id"),
    ("unknown image", coco(object_fields={"image_id": 7}), SKIPPED, r"annotations\.image_id: found 7"),
    ("other size", coco(height=33), SKIPPED, r"bad\.png: height and width: found \[32, 48\]"),
    ("one id twice", coco(id=1, object_fields={"image_id": 1}), SKIPPED, r"images\[1\]\.id: found 1"),
    ("picture cut off", lambda r: (coco()(r), cut(r / "bad.png")), SKIPPED, r"bad\.png: file"),
]


# --- DICOM ---


def dicom_good(root):
    shutil.copytree(CT, root / "good")
    dicom_segment(root / "good", root / "good.seg")
    return {}


def dicom_segment(folder, path):
    series = read_series(folder)
    label = np.zeros(series.array.shape, np.uint8)
    label[:, 2:12, 3:8] = 1
    write_seg(path, label, {1: "organ"}, series)


def dicom(change, *, segment=True):
    """Return a function that adds a copy of the series with other UIDs, changed after it was segmented."""

    def add(root):
        files = []
        for number, file in enumerate(sorted(CT.iterdir())):
            dataset = pydicom.dcmread(file)
            dataset.SeriesInstanceUID, dataset.SOPInstanceUID = "1.2.3", f"1.2.3.{number}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            files.append(root / "bad" / f"{number}.dcm")
            files[0].parent.mkdir(exist_ok=True)
            dataset.save_as(files[-1])
        if segment:
            dicom_segment(root / "bad", root / "bad.seg")
        change(files)

    return add


def edit(number=None, **tags):
    def change(files):
        for file in files if number is None else [files[number]]:
            dataset = pydicom.dcmread(file)
            for keyword, value in tags.items():
                setattr(dataset, keyword, value)
            dataset.save_as(file)

    return change


def position_of(number):
    return pydicom.dcmread(sorted(CT.iterdir())[number]).ImagePositionPatient


DICOM = [
    ("missing slice", dicom(lambda files: files[2].unlink()), SKIPPED, r"a gap of 5 mm"),
    ("one position twice", dicom(edit(2, ImagePositionPatient=position_of(1))), SKIPPED, r"the position of"),
    ("pixels cut off", dicom(lambda files: cut(files[2])), SKIPPED, r"bad/2\.dcm"),
    ("header cut off", dicom(lambda files: cut(files[2], 300)), SKIPPED, r"bad"),
    ("another size", dicom(edit(3, Rows=100)), SKIPPED, r"Rows, Columns"),
    ("no position", dicom(edit(1, ImagePositionPatient=None)), SKIPPED, r"ImagePositionPatient"),
    ("unknown modality", dicom(edit(Modality="OT")), SKIPPED, r"Modality: found 'OT'"),
    ("no label", dicom(lambda files: None, segment=False), SKIPPED, r"label: found none for series 1\.2\.3"),
    ("label alone", dicom(lambda files: shutil.rmtree(files[0].parent)), SKIPPED, r"bad\.seg: series"),
    ("label cut off", dicom(lambda f: cut(f[0].parents[1] / "bad.seg")), SKIPPED, r"bad\.seg"),
    ("text beside", lambda root: (root / "notes.dcm").write_text("x" * 400), IGNORED, ""),
]

TABLES = {
    "npz": (npz_good, NPZ),
    "manifest": (manifest_good, MANIFEST),
    "nifti": (nifti_good, NIFTI),
    "images": (images_good, IMAGES),
    "coco": (coco_good, COCO),
    "dicom": (dicom_good, DICOM),
}
CASES = [(verb, good, *entry) for verb, (good, table) in TABLES.items() for entry in table]


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("verb", "good", "add", "kind", "pattern"),
    [(verb, good, add, kind, pattern) for verb, good, _, add, kind, pattern in CASES],
    ids=[f"{verb}: {name}" for verb, _, name, *_ in CASES],
)
def test_malformed(call, source, tmp_path, verb, good, add, kind, pattern):
    options = [part for key, value in good(source).items() for part in (f"--{key}", value)]
    add(source)
    code, out, err = call(verb, "--src", source, "--out", tmp_path / "out", "--workers", 1, *options)
    assert "Traceback" not in out + err and err == "" and code == int(kind == SKIPPED)
    prepared = load_dataset(tmp_path / "out")
    assert len(prepared.training + prepared.validation) == (2 if kind == REPAIRED else 1)
    told = json.loads((tmp_path / "out" / "report.json").read_bytes())
    lines = [f"skipped: {entry['problem']}" for entry in told["skipped"]]
    lines += [f"left out: {entry['problem']}" for entry in told["left_out"]]
    assert {text for text in out.splitlines() if text.startswith(("skipped: ", "left out: "))} == set(lines)
    if kind in (SKIPPED, LEFT_OUT):
        assert lines and all(text.startswith(f"{kind}: ") and len(text) < 6000 for text in lines)
        assert any(re.search(pattern, text) for text in lines), lines
    else:
        assert not lines
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    arrays = {p.name for case in prepared.training + prepared.validation for p in (case.image, case.label)}
    assert names == arrays | {"dataset.json", "report.json"}
    assert all(name.isascii() and len(name) < 200 for name in names)


@pytest.mark.parametrize("verb", TABLES)
def test_the_good_case_is_prepared_once(call, source, tmp_path, verb):
    """An option of the reader that changes is noticed, another run with the same ones does nothing."""
    options = TABLES[verb][0](source)

    def reused():
        told = [part for key, value in options.items() for part in (f"--{key}", value)]
        out = call(verb, "--src", source, "--out", tmp_path / "out", "--workers", 1, *told)[1]
        return "1 cases (1 of them by an earlier run)" in out

    assert [reused(), reused()] == [False, True]
    if verb in ("nifti", "images", "coco", "dicom"):
        options["modality"] = "PET"
        assert [reused(), reused()] == [False, True]
    if verb in ("nifti", "images", "dicom"):
        options["names"] = "{1: thing}"
        assert [reused(), reused()] == [False, True]


def not_json(root):
    (root / "dataset.json").write_text("{")


def other_json(root):
    (root / "a.json").write_text("[]")


WHOLE = [
    ("npz", lambda root: root.rmdir(), r"src: found no such folder"),
    ("npz", lambda root: (root.rmdir(), root.write_text("")), r"src: found no such folder"),
    ("npz", lambda root: None, r"no \.npz file"),
    ("manifest", lambda root: None, r"no manifest lines"),
    ("nifti --modality CT", lambda root: None, r"no folder images"),
    ("nifti --modality CT", not_json, r"dataset\.json: file: found no JSON"),
    ("nifti", nifti_good, r"modality: found none"),
    ("nifti --modality CT --names {0:a}", nifti_good, r"names: found"),
    ("images --modality SPECT", images_good, r"modality: found 'SPECT'"),
    ("images --modality US --kind x", images_good, r"kind: found 'x'"),
    ("coco --modality US", lambda root: None, r"annotations"),
    ("coco --modality US", other_json, r"a\.json"),
    ("coco --modality US --annotations b.json", coco_good, r"b\.json"),
    ("dicom", lambda root: None, r"no DICOM file"),
    ("npz", npz("2D_US_a", gts=LABEL * 0), r"found none that could be prepared"),
]


@pytest.mark.parametrize(("arguments", "make", "pattern"), WHOLE, ids=[f"{a}-{n}" for n, (a, *_) in enumerate(WHOLE)])
def test_a_source_that_cannot_be_used_is_one_line(call, source, tmp_path, arguments, make, pattern):
    make(source)
    verb, *options = arguments.split(" ")
    code, _, err = call(verb, "--src", source, "--out", tmp_path / "out", "--workers", 1, *options)
    assert code == 1 and err.startswith("error: ") and err.count("\n") == 1 and re.search(pattern, err)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_an_output_folder_inside_a_file(call, source, tmp_path):
    npz_good(source)
    (tmp_path / "file").write_text("")
    code, out, err = call("npz", "--src", source, "--out", tmp_path / "file" / "out", "--workers", 1)
    assert (code, out) == (1, "") and re.search(r"out: found Not a directory", err) and err.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="rights of files")
def test_a_read_only_output_folder(call):
    with tempfile.TemporaryDirectory() as name:  # not below tmp_path, which others may not enter
        root = Path(name)
        (root / "in").mkdir()
        npz_good(root / "in")
        for done in (False, True):
            (root / "out").mkdir(exist_ok=True)
            if done:
                assert call("npz", "--src", root / "in", "--out", root / "out", "--workers", 1)[0] == 0
            before = contents(root)
            for folder in (root, root / "out", *root.glob("out/arrays")):
                folder.chmod(0o555)
            with as_nobody():
                code, out, err = call("npz", "--src", root / "in", "--out", root / "out", "--workers", 1)
            assert (code, out) == (1, "") and "out: found Permission denied" in err and err.count("\n") == 1
            assert contents(root) == before
            for folder in (root, root / "out", *root.glob("out/arrays")):
                folder.chmod(0o755)


@contextmanager
def as_nobody():
    """Give up the rights of root, for whom no folder is read-only."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("file", ["2D_US_b.image.npy", "2D_US_b.label.npy", "report.json", "dataset.json"])
def test_a_disk_that_fills_up(call, source, tmp_path, monkeypatch, file):
    """What is finished stays, nothing is half-written, and with room the next run carries on."""
    for name in "abc":
        npz(f"2D_US_{name}")(source)
    command = ("npz", "--src", source, "--workers", 1, "--leakage", "warn", "--out")
    assert call(*command, tmp_path / "once")[0] == 0
    real = files.os.replace

    def full(partial, path):
        if Path(path).name == file:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(partial, path)

    monkeypatch.setattr(files.os, "replace", full)
    code, out, err = call(*command, tmp_path / "out")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert err.startswith(f"error: {tmp_path}") and f"{file}: out: found No space left on device" in err
    left = contents(tmp_path / "out")
    assert not [path for path in left if path.name.endswith(".partial") or path.name == "dataset.json"]
    finished = left[Path("journal.jsonl")].count(b"\n")
    assert finished == (1 if "_b." in file else 3)
    monkeypatch.setattr(files.os, "replace", real)
    assert f"3 cases ({finished} of them by an earlier run)" in call(*command, tmp_path / "out")[1]
    assert contents(tmp_path / "out") == contents(tmp_path / "once")


@pytest.mark.skipif(sys.platform != "linux", reason="a limit for the size of files")
def test_a_limit_for_the_size_of_files(source, tmp_path):
    """The same with worker processes and the error of the system."""
    for name in "abc":
        npz(f"2D_US_{name}")(source)
    npz("2D_US_large", np.tile(GREY, (9, 9)), np.tile(LABEL, (9, 9)))(source)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (99_999, 99_999)); "
    command = [sys.executable, "-c", limit + "from data_prep.cli import main; main()"]
    command += ["npz", "--src", source, "--leakage", "warn", "--workers", "2", "--out", tmp_path / "out"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and run.stdout == ""
    assert re.fullmatch(r"error: .*/out: out: found File too large; .*\n", run.stderr)
    left = contents(tmp_path / "out")
    assert Path("dataset.json") not in left and not [path for path in left if path.name.endswith(".partial")]
