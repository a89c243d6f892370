"""Malformed .npz files of the challenge."""

import tempfile

import numpy as np

from tests.data_prep.malformed.inputs import GREY, LABEL, LEFT_OUT, REPAIRED, SKIPPED, cut, then


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
    ("no label", npz(gts=None), SKIPPED, r"gts: found no such array"),
    ("no image", npz(imgs=None), SKIPPED, r"imgs: found no such array"),
    ("only NaN", npz(imgs=HOLES * np.nan), SKIPPED, r"image: found NaN"),
    ("infinite", npz(imgs=HOLES * np.inf), SKIPPED, r"image: found infinite"),
    ("complex", npz(imgs=GREY + 1j), SKIPPED, r"dtype complex128"),
    ("text image", npz(imgs=GREY.astype(str)), SKIPPED, r"image: found dtype <U3"),
    ("two channels", npz(imgs=np.dstack([GREY] * 2)), SKIPPED, r"image: found shape"),
    ("four axes", npz("3D_MR_bad", imgs=GREY[None, None], gts=LABEL[None]), SKIPPED, r"imgs: found shape"),
    ("other sizes", npz(gts=LABEL[:20]), SKIPPED, r"label: found shape \(1, 20, 48\)"),
    ("zero size", npz(imgs=GREY[:0], gts=LABEL[:0]), SKIPPED, r"2D_US_bad\.npz: imgs: found shape \(0, 48\)"),
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
    ("NaN as background", npz(imgs=HOLES), REPAIRED, ""),
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
