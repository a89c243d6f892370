import json
import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image

from custom.errors import InputError
from data_prep.readers.nifti import NiftiReader
from data_prep.readers.nifti_layouts import DecathlonLayout, NnUNetLayout, PlainLayout
from tests.data_prep.volumes import save_volume

RNG = np.random.default_rng(0)
AFFINE = np.diag((-1.5, -1.5, 4.0, 1.0))  # stored as the canonical array, with x first
IMAGE = RNG.integers(-500, 500, (6, 5, 4)).astype(np.int16)
LABEL = RNG.integers(0, 3, (6, 5, 4)).astype(np.uint8)


@pytest.fixture
def files(tmp_path):
    """Return a function that writes files below a folder of sets, by the kind of their array, and the folder."""
    root = tmp_path / "Set7"

    def add(*paths, array=IMAGE, affine=AFFINE):
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            save_volume(root / path, array, affine)

    root.mkdir()
    return root, add


def nnunet(root, add, channels=("CT",), cases=("a", "b"), **fields):
    ending = fields.setdefault("file_ending", ".nii.gz")
    reported = {
        "channel_names": {str(i): name for i, name in enumerate(channels)},
        "labels": {"background": 0, "liver": 1},
    }
    (root / "dataset.json").write_text(json.dumps(reported | fields))
    for case in cases:
        for channel in range(len(channels)):
            add(f"imagesTr/{case}_{channel:04d}{ending}", array=IMAGE + channel)
        add(f"labelsTr/{case}{ending}", array=LABEL)


def decathlon(root, add, modalities=("CT",), cases=("a", "b"), **fields):
    training = [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in cases]
    reported = {"modality": {str(i): m for i, m in enumerate(modalities)}, "labels": {"0": "background", "1": "liver"}}
    (root / "dataset.json").write_text(json.dumps(reported | {"training": training} | fields))
    stack = np.stack([IMAGE + channel for channel in range(len(modalities))], -1)
    for case in cases:
        add(f"imagesTr/{case}.nii.gz", array=stack if len(modalities) > 1 else IMAGE)
        add(f"labelsTr/{case}.nii.gz", array=LABEL)


def loaded(reader):
    """Return name -> case of the sources without an error, after checking that their files are the sources."""
    reader = pickle.loads(pickle.dumps(reader))  # as for worker processes
    cases = {}
    for source in reader.sources():
        json.dumps(source.entry)
        if not source.error:
            case = reader.load(source)
            assert source.files == (case.image.path, case.label_file)
            cases[source.name] = case
    return cases


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".mgz", ".img"])
def test_nnunet(files, ending):
    root, add = files
    nnunet(root, add, file_ending=ending)
    reader = NiftiReader(root)
    cases = loaded(reader)
    assert isinstance(reader.layout, NnUNetLayout) and list(cases) == ["CT_Set7_a", "CT_Set7_b"]
    case = cases["CT_Set7_a"]
    np.testing.assert_array_equal(case.image.array, IMAGE.transpose(2, 1, 0))
    np.testing.assert_array_equal(case.label, LABEL.transpose(2, 1, 0))
    assert case.names == {1: "liver"} and case.modality == "CT" and case.dataset == "Set7" and case.split is None
    geometry = case.image.geometry
    assert case.image.spacing == geometry.spacing == (4.0, 1.5, 1.5) and geometry.shape == IMAGE.shape
    assert case.image.kind == "volume" and not case.instance and not case.meta


@pytest.mark.parametrize("channels", ["RGB", ("red", "green", "blue")])
def test_nnunet_pictures_in_colour(files, channels):
    root, add = files
    nnunet(root, add, channels=channels, cases=(), file_ending=".png")
    colours = RNG.integers(0, 256, (6, 5, 3), np.uint8)
    for folder, name, array in (("imagesTr", "a_0000", colours), ("labelsTr", "a", LABEL[..., 0])):
        (root / folder).mkdir()
        Image.fromarray(array).save(root / folder / f"{name}.png")
    case = loaded(NiftiReader(root, modality="dermoscopy"))["Dermoscopy_Set7_a"]
    np.testing.assert_array_equal(case.image.array[0], colours)
    np.testing.assert_array_equal(case.label[0], LABEL[..., 0])
    assert case.image.kind == "picture" and case.image.spacing is None and not case.meta


def test_channels_are_cases_of_one_patient(files):
    root, add = files
    nnunet(root, add, channels=("T1w", "FDG-PET"))
    cases = loaded(NiftiReader(root))
    assert list(cases) == ["MR_Set7_a_0000", "PET_Set7_a_0001", "MR_Set7_b_0000", "PET_Set7_b_0001"]
    for (name, case), channel, patient in zip(cases.items(), (0, 1, 0, 1), "aabb", strict=True):
        np.testing.assert_array_equal(case.image.array, (IMAGE + channel).transpose(2, 1, 0))
        assert case.modality == name.split("_")[0] and case.meta == {"patient": f"Set7_{patient}"}


@pytest.mark.parametrize(
    ("channel", "modality"),
    [
        ("CT", "CT"),
        ("MRI", "MR"),
        ("T1", "MR"),
        ("t1gd", "MR"),
        ("T1ce", "MR"),
        ("T2-FLAIR", "MR"),
        ("ADC", "MR"),
        ("x-ray", "X-Ray"),
        ("mono_mr", "MR"),
        ("PET-CT", None),
        ("noNorm", None),
        ("zscore", None),
    ],
)
@pytest.mark.parametrize("make", [nnunet, decathlon])
def test_modality_of_a_channel(files, channel, modality, make):
    root, add = files
    make(root, add, (channel,))
    if modality:
        assert NiftiReader(root, modality="ultrasound").modalities == [modality]
    else:
        with pytest.raises(InputError, match=r"dataset\.json: modality: found the channel .*Microscopy"):
            NiftiReader(root)
        assert NiftiReader(root, modality="ultrasound").modalities == ["US"]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({"background": 0, "a": 1, "b": "2", "c": [3], "ignore": 4}, {1: "a", 2: "b", 3: "c"}),
        ({"0": "background", "1": "a", "12": "b"}, {1: "a", 12: "b"}),
        ({"background": 0, "whole": [1, 2], "core": [2]}, None),
        ({"a": 1.5}, None),
        ({"a": 10**4000}, None),
        ({"9" * 5000: "a"}, None),
        ({"background": 0}, None),
        (["a"], None),
        (None, None),
    ],
)
@pytest.mark.parametrize("make", [nnunet, decathlon])
def test_label_names(files, labels, names, make):
    root, add = files
    make(root, add, labels=labels)
    if names:
        assert NiftiReader(root).names == names
    else:
        with pytest.raises(InputError, match=r"dataset\.json: labels"):
            NiftiReader(root)
    assert NiftiReader(root, names={"1": "tumor", "*": "rest"}).names == {1: "tumor", "*": "rest"}


def test_nnunet_files_that_are_missing(files):
    root, add = files
    nnunet(root, add, channels=("T1", "T2"), cases="abcd")
    (root / "imagesTr/a_0001.nii.gz").unlink()
    (root / "labelsTr/b.nii.gz").unlink()
    (root / "imagesTr/c_0000.nii.gz").rename(root / "imagesTr/c.nii.gz")
    (root / "imagesTr/._d_0000.nii.gz").write_text("from a Mac")
    reader = NiftiReader(root)
    errors = [str(source.error) for source in reader.sources() if source.error]
    assert list(loaded(reader)) == ["MR_Set7_d_0000", "MR_Set7_d_0001"] and len(errors) == 4
    reported = ["imagesTr/a_0001.nii.gz: file", "labelsTr/b.nii.gz: file", "c.nii.gz: file name", "c_0000.nii.gz: file"]
    for part in reported:
        assert sum(part in error for error in errors) == 1
    names = [source.name for source in reader.sources()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "fields",
    [
        {"channel_names": {"1": "CT"}},
        {"channel_names": {}},
        {"channel_names": ["CT"]},
        {"file_ending": ".txt"},
        {"file_ending": None},
    ],
)
def test_nnunet_malformed(files, fields):
    root, _ = files
    reported = {"channel_names": {"0": "CT"}, "labels": {"a": 1}, "file_ending": ".nii.gz"} | fields
    (root / "dataset.json").write_text(json.dumps(reported))
    with pytest.raises(InputError, match=rf"dataset\.json: {next(iter(fields))}"):
        NiftiReader(root)


def test_decathlon(files):
    root, add = files
    decathlon(root, add)
    reader = NiftiReader(root)
    cases = loaded(reader)
    assert isinstance(reader.layout, DecathlonLayout) and list(cases) == ["CT_Set7_a", "CT_Set7_b"]
    np.testing.assert_array_equal(cases["CT_Set7_b"].image.array, IMAGE.transpose(2, 1, 0))
    assert cases["CT_Set7_b"].names == {1: "liver"} and cases["CT_Set7_b"].split is None


def test_decathlon_volumes_of_a_4d_file(files):
    root, add = files
    decathlon(root, add, ("FLAIR", "T1w", "T2w"), cases="a")
    cases = loaded(NiftiReader(root))
    assert list(cases) == ["MR_Set7_a_0000", "MR_Set7_a_0001", "MR_Set7_a_0002"]
    for channel, case in enumerate(cases.values()):
        np.testing.assert_array_equal(case.image.array, (IMAGE + channel).transpose(2, 1, 0))
        np.testing.assert_array_equal(case.label, LABEL.transpose(2, 1, 0))
        assert case.meta == {"patient": "Set7_a"}


def test_decathlon_with_a_split_and_bad_entries(files):
    root, add = files
    good = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
    bad = ["a", {"image": "imagesTr/a.nii.gz"}, good | {"label": "x.txt"}, good | {"label": "labelsTr/x.nii.gz"}]
    decathlon(root, add, cases="a", training=[good, *bad], validation=[good])
    reader = NiftiReader(root)
    assert {name: case.split for name, case in loaded(reader).items()} == {
        "CT_Set7_train_a": "train",
        "CT_Set7_val_a": "val",
    }
    errors = [str(source.error) for source in reader.sources() if source.error]
    for error, part in zip(errors, ["training[1]", "training[2]", "training[3]", "labelsTr/x.nii.gz"], strict=True):
        assert part in error


@pytest.mark.parametrize("fields", [{"modality": "CT"}, {"modality": {"a": "CT"}}, {"training": {"image": "a"}}])
def test_decathlon_malformed(files, fields):
    root, add = files
    decathlon(root, add, **fields)
    with pytest.raises(InputError, match=rf"dataset\.json: {next(iter(fields))}"):
        NiftiReader(root)


@pytest.mark.parametrize("suffix", ["", "_seg", "_label", "_mask", "_gt", "_GT"])
@pytest.mark.parametrize("channel", ["", "_0000"])
def test_plain(files, suffix, channel):
    root, add = files
    add(f"images/p 1{channel}.nii.gz")
    add(f"labels/p 1{suffix}.nii", array=LABEL)
    reader = NiftiReader(root, modality="mri")
    case = loaded(reader)["MR_Set7_p_1"]
    assert isinstance(reader.layout, PlainLayout) and case.names == {"*": "object"} and case.split is None
    np.testing.assert_array_equal(case.image.array, IMAGE.transpose(2, 1, 0))
    np.testing.assert_array_equal(case.label, LABEL.transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("image", "label"),
    [("a.nrrd", "a.seg.nrrd"), ("a.mha", "a-label.nrrd"), ("a_0000.mgz", "a.nii.gz"), ("a.img", "a_seg.img")],
)
def test_plain_volumes_of_any_format(files, image, label):
    root, add = files
    add(f"images/{image}")
    add(f"labels/{label}", array=LABEL)
    case = loaded(NiftiReader(root, modality="mri"))["MR_Set7_a"]
    np.testing.assert_array_equal(case.image.array, IMAGE.transpose(2, 1, 0))
    np.testing.assert_array_equal(case.label, LABEL.transpose(2, 1, 0))
    assert case.image.spacing == (4.0, 1.5, 1.5)


def test_plain_stacks(files):
    root, _ = files
    for folder, array in (("images", IMAGE.T), ("labels", LABEL.T)):
        (root / folder).mkdir()
        tifffile.imwrite(root / folder / "a.tif", array, photometric="minisblack")
    case = loaded(NiftiReader(root, modality="microscopy"))["Microscopy_Set7_a"]
    np.testing.assert_array_equal(case.image.array, IMAGE.T)
    np.testing.assert_array_equal(case.label, LABEL.T)
    assert case.image.kind == "volume" and case.image.geometry is None


def test_plain_with_the_same_names(files):
    root, add = files
    add("scans/a_mask.nii.gz", "scans/b_0000.nii.gz", "scans/a.nii.gz")
    add("truth/a_mask.nii.gz", "truth/b_0000.nii.gz", "truth/a_gt.nii.gz", array=LABEL)
    reader = NiftiReader(root, modality="CT", images="scans", labels="truth", names={2: "lesion"})
    cases = loaded(reader)
    assert list(cases) == ["CT_Set7_a", "CT_Set7_a_mask", "CT_Set7_b"]
    assert cases["CT_Set7_a"].label_file.endswith("a_gt.nii.gz") and cases["CT_Set7_a"].names == {2: "lesion"}


def test_plain_split_folders(files):
    root, add = files
    for part in ("train", "val"):
        add(f"{part}/images/1.nii.gz")
        add(f"{part}/labels/1.nii.gz", array=LABEL)
    cases = loaded(NiftiReader(root, modality="CT"))
    assert {name: case.split for name, case in cases.items()} == {"CT_Set7_train_1": "train", "CT_Set7_val_1": "val"}


def test_plain_files_without_or_with_several_partners(files):
    root, add = files
    add("images/a.nii.gz", "images/b.nii.gz", "images/d.nii.gz", "images/e.nii.gz", "images/e_0000.nii.gz")
    add(*(f"labels/{name}.nii.gz" for name in ("a", "c", "d_seg", "d_gt", "e")), array=LABEL)
    (root / "images/notes.txt").write_text("no volume")
    reader = NiftiReader(root, modality="CT")
    errors = {source.name: str(source.error) for source in reader.sources() if source.error}
    assert list(loaded(reader)) == ["CT_Set7_a"] and list(errors) == ["Set7_b", "Set7_c", "Set7_d", "Set7_e"]
    for name, reported in {
        "b": "1 in images and 0 in labels",
        "c": "0 in images and 1",
        "d": "and 2 in labels",
    }.items():
        assert reported in errors[f"Set7_{name}"]


def test_flat_volume_is_a_picture(files):
    root, add = files
    add("images/a.nii.gz", array=IMAGE[..., :1])
    add("labels/a.nii.gz", array=LABEL[..., 0])
    case = loaded(NiftiReader(root, modality="US"))["US_Set7_a"]
    assert case.image.kind == "picture" and case.image.array.shape == case.label.shape == (1, 5, 6)


@pytest.mark.parametrize(
    ("label", "affine", "match"),
    [
        (LABEL, np.diag((-1.5, -1.5, 5.0, 1.0)), "mismatched affine"),
        (LABEL, np.diag((1.5, -1.5, 4.0, 1.0)), "mismatched affine"),
        (LABEL[1:], AFFINE, "shape"),
        (LABEL + np.float32(0.5), AFFINE, "fractions"),
        (np.stack([LABEL, LABEL], -1), AFFINE, "4D with 2 volumes"),
    ],
    ids=["spacing", "mirrored", "shape", "fractions", "4D"],
)
def test_label_that_does_not_fit(files, label, affine, match):
    root, add = files
    add("images/a.nii.gz")
    add("labels/a.nii.gz", array=label, affine=affine)
    reader = NiftiReader(root, modality="CT")
    with pytest.raises(InputError, match=rf"labels/a\.nii\.gz: .*{match}"):
        reader.load(reader.sources()[0])


def test_changed_names_change_the_entry(files):
    root, add = files
    add("images/a.nii.gz", "labels/a.nii.gz", array=LABEL)
    entries = [NiftiReader(root, modality="CT", names=names).sources()[0].entry for names in (None, {1: "a"}, {1: "b"})]
    assert entries[0] != entries[1] != entries[2]


@pytest.mark.parametrize(
    ("make", "options", "match"),
    [
        ("nothing", {"modality": "CT"}, "Set7: src"),
        ("images", {"modality": "CT"}, "labels: folder"),
        ("both", {}, "modality: found none"),
        ("both", {"modality": "wood"}, "arguments: modality"),
        ("both", {"modality": "CT", "names": {"0": "a"}}, "arguments: names"),
        ("both", {"modality": "CT", "names": "liver"}, "arguments: names"),
        ("both", {"modality": "CT", "images": "scans"}, "no folder scans"),
        ("empty", {"modality": "CT"}, "no pair"),
        ("text", {"modality": "CT"}, r"dataset\.json: file"),
        ("list", {"modality": "CT"}, r"dataset\.json: file"),
        ("other", {"modality": "CT"}, "Set7: src"),
    ],
)
def test_bad_sets(files, make, options, match):
    root, add = files
    if make in ("images", "both"):
        add("images/a.nii.gz")
    if make == "both":
        add("labels/a.nii.gz", array=LABEL)
    if make == "empty":
        (root / "images").mkdir()
        (root / "labels").mkdir()
    if make in ("text", "list", "other"):
        (root / "dataset.json").write_text({"text": "{", "list": "[]", "other": "{}"}[make])
    with pytest.raises(InputError, match=match):
        NiftiReader(root, **options).sources()


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        NiftiReader(tmp_path / "gone", modality="CT")


@pytest.mark.parametrize("place", ["../secret/a.nii.gz", "{root}/../secret/a.nii.gz"])
def test_files_outside_of_the_folder(files, place):
    root, add = files
    add("imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "../secret/a.nii.gz", array=LABEL)
    pair = {"image": place.format(root=root), "label": "./labelsTr/a.nii.gz"}
    reported = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "training": [pair]}
    (root / "dataset.json").write_text(json.dumps(reported))
    (source,) = NiftiReader(root).sources()
    assert "training[0]: found" in str(source.error) and "image and label inside" in str(source.error)
