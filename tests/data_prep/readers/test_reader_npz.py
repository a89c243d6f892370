import numpy as np
import pytest

from custom.errors import InputError
from data_prep.readers.npz import NpzReader

RNG = np.random.default_rng(0)
GTS = RNG.integers(0, 3, (6, 7), np.uint8)
IMGS = RNG.integers(0, 256, (6, 7), np.uint8)


def load(folder, name="2D_US_Set_1", **arrays):
    path = folder / "deep" / f"{name}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)
    reader = NpzReader(folder)
    (source,) = reader.sources()
    assert source.files == (str(path),)
    return reader.load(source)


@pytest.mark.parametrize("imgs", [IMGS, RNG.integers(0, 256, (6, 7, 3), np.uint8)])
def test_picture(tmp_path, imgs):
    case = load(tmp_path, imgs=imgs, gts=GTS)
    assert (case.name, case.modality, case.dataset, case.image.kind) == ("2D_US_Set_1", "US", "Set", "picture")
    np.testing.assert_array_equal(case.image.array, imgs[None])
    np.testing.assert_array_equal(case.label, GTS[None])
    assert case.image.spacing is None and not case.instance and case.split is None


def test_volume_spacing_is_turned_to_zyx(tmp_path):
    volume = RNG.integers(0, 256, (4, 6, 7), np.uint8)
    case = load(tmp_path, "3D_MR_Brain_x", imgs=volume, gts=np.ones((4, 6, 7), np.uint16), spacing=(0.5, 0.6, 3.0))
    assert (case.modality, case.image.kind, case.image.spacing) == ("MR", "volume", (3.0, 0.6, 0.5))
    np.testing.assert_array_equal(case.image.array, volume)


@pytest.mark.parametrize(
    ("name", "modality", "dataset", "instance"),
    [("2D_XRay_Chest_1_a", "X-Ray", "Chest", False), ("2D_Microscopy_cell_3", "Microscopy", "cell", True)],
)
def test_names(tmp_path, name, modality, dataset, instance):
    case = load(tmp_path, name, imgs=IMGS, gts=GTS)
    assert (case.modality, case.dataset, case.instance) == (modality, dataset, instance)


@pytest.mark.parametrize(
    ("name", "arrays", "match"),
    [
        ("2D_US_a", {"imgs": IMGS}, "gts: found no such array"),
        ("US_a", {"imgs": IMGS, "gts": GTS}, "file name"),
        ("2D_SPECT_a", {"imgs": IMGS, "gts": GTS}, "modality"),
        ("3D_CT_a", {"imgs": IMGS, "gts": GTS}, "imgs"),
        ("2D_US_a", {"imgs": IMGS, "gts": GTS - 0.5}, "fractions"),
        ("3D_CT_a", {"imgs": IMGS[None], "gts": GTS[None], "spacing": (1.0, 0.0, 1.0)}, "spacing"),
        ("3D_CT_a", {"imgs": IMGS[None], "gts": GTS[None], "spacing": (1.0, 1.0)}, "spacing"),
        ("2D_US_a", {"imgs": np.array([{}], object), "gts": GTS}, "allow_pickle=False"),
    ],
)
def test_bad_file(tmp_path, name, arrays, match):
    with pytest.raises(InputError, match=match):
        load(tmp_path, name, **arrays)


def test_corrupt_file(tmp_path):
    (tmp_path / "2D_US_a.npz").write_bytes(b"PK no archive")
    reader = NpzReader(tmp_path)
    with pytest.raises(InputError, match=r"2D_US_a\.npz: file"):
        reader.load(reader.sources()[0])


def test_no_source(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        NpzReader(tmp_path / "none")
    with pytest.raises(InputError, match="no .npz file"):
        NpzReader(tmp_path).sources()
