import json
import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from custom.errors import InputError
from data_prep.readers.images import ImagesReader


@pytest.fixture
def root(tmp_path):
    return tmp_path / "Polyps"


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def picture(seed=0, size=(6, 8, 3)):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def mask(value=255):
    label = np.zeros((6, 8), np.uint8)
    label[1:4, 2:7] = value
    return label


def listed(reader):
    return {source.name: source for source in reader.sources()}


@pytest.mark.parametrize("suffix", ["", "_mask", "_seg", "_label", "_gt", "_segmentation", "_MASK", "_1", "_mask_0"])
def test_pairs_by_name(root, suffix):
    save(root / "images" / "case 7.png", picture())
    save(root / "masks" / f"case 7{suffix}.bmp", mask())
    reader = pickle.loads(pickle.dumps(ImagesReader(root, modality="endoscopy")))
    (source,) = reader.sources()
    image, label = str(root / "images" / "case 7.png"), str(root / "masks" / f"case 7{suffix}.bmp")
    assert source.name == "Endoscopy_Polyps_case_7" and source.files == (image, label) and source.error is None
    assert json.loads(json.dumps(source.entry)) == source.entry
    case = reader.load(source)
    np.testing.assert_array_equal(case.image.array[0], picture())
    np.testing.assert_array_equal(case.label[0], mask(1))
    assert (case.modality, case.dataset, case.split, case.image.kind) == ("Endoscopy", "Polyps", None, "picture")
    assert case.names == {1: "object"} and case.image.spacing is None and not case.instance
    assert (case.image.path, case.label_file) == (image, label)


def test_the_longest_name_that_is_there_wins(root):
    for name in ("a", "a_1", "a_2", "b_seg"):
        save(root / "images" / f"{name}.png", picture())
    for name in ("a", "a_1", "a_2_0", "b_seg"):
        save(root / "masks" / f"{name}.png", mask())
    masks = {name: len(source.entry["masks"]) for name, source in listed(ImagesReader(root, modality="US")).items()}
    assert masks == {"US_Polyps_a": 1, "US_Polyps_a_1": 1, "US_Polyps_a_2": 1, "US_Polyps_b_seg": 1}


def test_several_masks_are_objects(root):
    save(root / "images" / "a.png", picture())
    first, second = mask(), np.zeros((6, 8))
    second[2, 3:5] = 1
    save(root / "masks" / "a_mask.png", first)
    save(root / "masks" / "a_mask_1.png", second)
    save(root / "images" / "b.png", picture())
    save(root / "masks" / "b" / "0f.png", second)
    save(root / "masks" / "b" / "e1.png", first)
    reader = ImagesReader(root, modality="Microscopy", names={"*": "nucleus"})
    a, b = (reader.load(source) for source in reader.sources())
    np.testing.assert_array_equal(a.label[0], np.where(second, 2, first > 0))
    np.testing.assert_array_equal(b.label[0], np.where(second, 1, 2 * (first > 0)))
    assert a.instance and b.instance and a.names == b.names == {"*": "nucleus"}


def test_one_folder_for_both(root):
    for name in ("x (1)", "x (2)"):
        save(root / f"{name}.png", picture())
        save(root / f"{name}_mask.png", mask())
    save(root / "x (2)_mask_1.png", mask())
    sources = listed(ImagesReader(root, modality="US", images=".", masks="."))
    assert {name: len(s.entry["masks"]) for name, s in sources.items()} == {"US_Polyps_x_1": 1, "US_Polyps_x_2": 2}


def test_folders_give_the_split(root):
    for part in ("train", "val"):
        save(root / part / "img" / "a.png", picture())
        save(root / part / "gt" / "a.png", mask())
    reader = ImagesReader(root, modality="US", images="img", masks="gt")
    splits = {name: reader.load(source).split for name, source in listed(reader).items()}
    assert splits == {"US_Polyps_train_a": "train", "US_Polyps_val_a": "val"}


def test_one_part_alone_gives_no_split(root):
    save(root / "train" / "images" / "a.png", picture())
    save(root / "train" / "masks" / "a.png", mask())
    reader = ImagesReader(root, modality="US")
    (source,) = reader.sources()
    assert source.name == "US_Polyps_a" and reader.load(source).split is None


def test_the_options_of_masks_are_part_of_the_entry(root):
    save(root / "images" / "a.png", picture())
    save(root / "masks" / "a.png", np.stack([mask(), mask(0), mask(9)], -1))
    plain = ImagesReader(root, modality="US")
    coloured = ImagesReader(root, modality="US", palette={"#ff0009": "duct"})
    (one,), (other,) = plain.sources(), coloured.sources()
    assert one.entry != other.entry and one.files == other.files
    assert plain.load(one).names == {1: "object"} and coloured.load(other).names == {1: "duct"}


@pytest.mark.parametrize("unit", ["um", None])
def test_stacks_are_volumes(root, unit):
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    volume = picture(size=(5, 6, 8)).astype(np.uint16) * 100
    label = np.random.default_rng(1).integers(0, 4, (5, 6, 8), dtype=np.uint16)
    reported = {"spacing": 2.0, "unit": unit, "axes": "ZYX"} if unit else {"axes": "ZYX"}
    tifffile.imwrite(root / "images" / "a.tif", volume, imagej=True, resolution=(2, 4), metadata=reported)
    tifffile.imwrite(root / "masks" / "a.tiff", label)
    reader = ImagesReader(root, modality="Microscopy", kind="instances")
    (source,) = reader.sources()
    case = reader.load(source)
    np.testing.assert_array_equal(case.image.array, volume)
    np.testing.assert_array_equal(case.label, label)
    assert case.image.kind == "volume" and case.instance
    assert case.image.spacing == (pytest.approx((0.002, 0.00025, 0.0005)) if unit else None)


def test_what_has_no_counterpart_is_an_error_of_its_own(root):
    for name in ("a", "b", "c"):
        save(root / "images" / f"{name}.png", picture())
    save(root / "images" / "c.jpg", picture())
    (root / "images" / "notes.txt").write_text("")
    (root / "images" / "._a.png").write_bytes(b"")
    for name in ("a", "c", "d"):
        save(root / "masks" / f"{name}.png", mask())
    save(root / "masks" / "e" / "1.png", mask())
    sources = ImagesReader(root, modality="US").sources()
    good, bad = [s for s in sources if s.error is None], [str(s.error) for s in sources if s.error]
    assert [source.name for source in good] == ["US_Polyps_a", "US_Polyps_c"]
    images, masks = root / "images", root / "masks"
    assert bad == [
        f"{images / 'b.png'}: mask: found none; allowed: a picture of the same name in {masks}",
        f"{images / 'c.png'}: file name: found c.png; allowed: a unique name without the ending",
        f"{masks / 'd.png'}: image: found none; allowed: a picture of the same name in {images}",
        f"{masks / 'e'}: image: found none; allowed: a picture of the same name in {images}",
    ]


def test_masks_of_another_size(root):
    save(root / "images" / "a.png", picture())
    save(root / "masks" / "a.png", mask().T)
    reader = ImagesReader(root, modality="US")
    with pytest.raises(InputError, match=r"shape \(1, 8, 6\); allowed: the image's \(1, 6, 8\)"):
        reader.load(reader.sources()[0])


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_masks_fit_pictures_as_viewers_show_them(root, name):
    exif = Image.Exif()
    exif[274] = 6
    (root / "images").mkdir(parents=True)
    Image.fromarray(picture(size=(8, 6, 3))).save(root / "images" / name, exif=exif)
    shown = ImageOps.exif_transpose(Image.open(root / "images" / name))
    save(root / "masks" / "a.png", mask())
    reader = ImagesReader(root, modality="Dermoscopy")
    case = reader.load(reader.sources()[0])
    np.testing.assert_array_equal(case.image.array[0], np.asarray(shown))
    assert case.label.shape == (1, 6, 8)
    save(root / "masks" / "a.png", mask().T)
    with pytest.raises(
        InputError, match=r"shape \(1, 8, 6\); .* \(1, 6, 8\), upright according to its EXIF orientation"
    ):
        reader.load(reader.sources()[0])


def test_a_picture_is_measured_in_pixels(root):
    (root / "images").mkdir(parents=True)
    metadata = {"unit": "um", "axes": "YX"}
    tifffile.imwrite(root / "images" / "a.tif", picture(size=(6, 8)), imagej=True, resolution=(2, 4), metadata=metadata)
    save(root / "masks" / "a.png", mask())
    reader = ImagesReader(root, modality="Microscopy")
    assert reader.load(reader.sources()[0]).image.spacing is None


def test_broken_image(root):
    save(root / "images" / "a.png", picture())
    save(root / "masks" / "a.png", mask())
    (root / "images" / "a.png").write_bytes(b"no picture")
    reader = ImagesReader(root, modality="US")
    with pytest.raises(InputError, match="a readable picture"):
        reader.load(reader.sources()[0])


def test_errors_of_the_folder(root):
    with pytest.raises(InputError, match="src: found no such folder"):
        ImagesReader(root, modality="US")
    (root / "images").mkdir(parents=True)
    with pytest.raises(InputError, match="src: found no folder masks"):
        ImagesReader(root, modality="US")
    (root / "masks").mkdir()
    with pytest.raises(InputError, match="modality: found 'XY'"):
        ImagesReader(root, modality="XY")
    with pytest.raises(InputError, match="kind: found 'x'"):
        ImagesReader(root, modality="US", kind="x")
    with pytest.raises(InputError, match="images: found no picture"):
        ImagesReader(root, modality="US").sources()
    (root / "train" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match="images/ beside train"):
        ImagesReader(root, modality="US")
