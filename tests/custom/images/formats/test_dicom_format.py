import subprocess
import sys

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from custom.errors import InputError
from custom.images.formats import dicom, format_of, mask_format
from custom.images.reading import read_image, read_labels

PIXELS = np.random.default_rng(1).integers(0, 2000, (5, 6, 7)).astype(np.int16)  # KxRxC
SAGITTAL = ((0, 1, 0), (0, 0, -1))


@pytest.fixture
def stack(tmp_path, write_stack):
    """Write a stack and return its folder and its data sets in the order of k."""

    def make(**tags):
        datasets = write_stack(tmp_path / "ct", PIXELS, edit=lambda k: {"InstanceNumber": 10 - k}, **tags)
        return tmp_path / "ct", datasets

    return make


def groups(keyword_values):
    item = Dataset()
    for keyword, values in keyword_values.items():
        group = Dataset()
        for name, value in values.items():
            setattr(group, name, value)
        setattr(item, keyword, [group])
    return item


def multi_frame(path, write_image, order, **tags):
    """Write an enhanced CT whose frames are not stored in their spatial order."""
    places = [{"PlanePositionSequence": {"ImagePositionPatient": [0, 0, 2.5 * k]}} for k in order]
    shared = {
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        "PixelMeasuresSequence": {"PixelSpacing": [0.7, 0.9], "SliceThickness": 2.5},
    }
    tags |= {"PerFrameFunctionalGroupsSequence": [groups(place) for place in places]}
    tags |= {"SharedFunctionalGroupsSequence": [groups(shared)], "SOPClassUID": EnhancedCTImageStorage}
    return write_image(path, PIXELS, NumberOfFrames=5, FrameOfReferenceUID="1.2.3.5", InstanceNumber=4, **tags)


def test_recognised(tmp_path, stack, write_image):
    folder, _ = stack()
    paths = [folder, folder / "0.dcm"]
    for name in ("a.DICOM", "b.ima", "c", "d.7", "dicomdir", "e.raw"):
        write_image(tmp_path / name, PIXELS[0])
        paths.append(tmp_path / name)
    assert [format_of(path).__name__.rpartition(".")[2] for path in paths] == ["dicom"] * 8
    content = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(content[content.index(b"\x08\0\x16\0") :])  # the data set alone
    assert format_of(tmp_path / "c") is dicom
    (tmp_path / "e.raw").write_bytes((tmp_path / "c").read_bytes())
    for name, content in (("e.raw", None), ("f", b"x" * 300), ("g", b"")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=r"a file of another kind; allowed: DICOM \(\.dcm, \.dicom, \.ima, a fold"):
            format_of(tmp_path / name)


def test_registry_imports_no_reader():
    code = (
        "import sys\nfrom custom.images.formats import formats\nassert 'dicom' in formats()\n"
        "print([name for name in sys.modules if name.startswith(('highdicom', 'custom.images.dicom'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "['custom.images.dicom_mark']\n"


def test_volume(stack):
    folder, datasets = stack(SeriesDescription="chest")
    image = read_image(folder)
    assert (image.format, image.kind, image.modality, image.modality_source) == ("dicom", "volume", "CT", "DICOM")
    assert image.array.shape == (5, 6, 7) and image.array.dtype == np.uint8
    assert image.spacing == (2.5, 0.7, 0.9) and image.size == (7, 6, 5)
    assert image.notes["series"] == {"uid": "1.2.3.4", "description": "chest", "dicom_modality": "CT"}
    assert image.notes["slices"] == [
        {"z": k, "InstanceNumber": 10 - k, "SOPInstanceUID": datasets[k].SOPInstanceUID} for k in range(5)
    ]
    assert set(image.notes) == {"series", "slices"}


def test_z_of_the_notes_is_that_of_boxes(stack):
    """Also where slices are sagittal, and stored from left to right."""
    folder, datasets = stack(directions=SAGITTAL)
    image = dicom.read(str(folder))
    by_uid = {dataset.SOPInstanceUID: pydicom.pixels.pixel_array(dataset) for dataset in datasets}
    stored = image.to_zyx(image.array)
    for note in image.notes["slices"]:
        np.testing.assert_array_equal(stored[note["z"]], by_uid[note["SOPInstanceUID"]])


def test_notes_of_a_multi_frame_file(tmp_path, write_image):
    order = [3, 0, 4, 1, 2]
    uid = multi_frame(tmp_path / "a.dcm", write_image, order).SOPInstanceUID
    notes = read_image(tmp_path / "a.dcm").notes["slices"]
    assert notes == [
        {"z": z, "InstanceNumber": 4, "SOPInstanceUID": uid, "frame": order.index(z) + 1} for z in range(5)
    ]


def test_picture(tmp_path, write_image):
    write_image(tmp_path / "a.dcm", PIXELS[0], Modality="DX", PixelSpacing=[0.1, 0.2])
    image = read_image(tmp_path / "a.dcm")
    assert (image.kind, image.array.shape, image.spacing, image.geometry) == ("picture", (6, 7), (0.1, 0.2), None)
    assert "slices" not in image.notes


@pytest.mark.parametrize(("kind", "shown"), [("NM", "NM"), ("OT", "OT"), ("", ", which is empty,")])
def test_modality_without_a_counterpart(tmp_path, write_image, kind, shown):
    write_image(tmp_path / "a.dcm", PIXELS[0], Modality=kind)
    image = read_image(tmp_path / "a.dcm")
    assert image.modality is None
    assert image.notes["warning_modality"].startswith(f"DICOM's Modality{' ' * bool(kind)}{shown} has no counterpart")


def test_choices(stack, write_image):
    folder, _ = stack(SeriesNumber=5)
    write_image(folder / "other", PIXELS[0], SeriesInstanceUID="1.9", SeriesNumber=6)
    assert read_image(folder, series=5).kind == "volume" and read_image(folder, series="1.9").kind == "picture"
    with pytest.raises(InputError, match="2 image series"):
        read_image(folder)
    with pytest.raises(InputError, match="frame: found 1"):
        read_image(folder, frame=1, series=5)


def test_unreadable_files_are_noted(stack):
    folder, _ = stack()
    (folder / "x.dcm").write_bytes((folder / "0.dcm").read_bytes()[:250])
    (note,) = read_image(folder).notes["unreadable"]
    assert note.startswith(f"{folder / 'x.dcm'}: ")


def blobs(shape):
    labels = np.random.default_rng(3).integers(0, 3, shape).astype(np.uint8)
    labels[0] = 0
    return labels


def test_each_file_is_opened_once_until_the_mask_is_written(tmp_path, stack, write_image, opened):
    folder, _ = stack()
    write_image(folder / "seg.dcm", PIXELS[0].view(np.uint16), Modality="SEG", SeriesInstanceUID="1.9")
    (folder / "notes.txt").write_text("x" * 300)
    del opened[:]
    image = read_image(folder)
    module, reason = mask_format(image)
    module.write_mask(tmp_path / "mask.dcm", blobs((5, 6, 7)), {1: "liver", 2: "kidney"}, image)
    assert (module.MASK, reason) == ("seg", None)
    found = sorted(file for file in opened if file.startswith(str(folder)))
    assert found == sorted(str(path) for path in folder.iterdir())
    del opened[:]
    read_image(folder / "0.dcm")
    assert [file for file in opened if file.startswith(str(folder))] == [str(folder / "0.dcm")]


@pytest.mark.parametrize("directions", [((1, 0, 0), (0, 1, 0)), SAGITTAL])
def test_mask(tmp_path, stack, directions):
    folder, datasets = stack(directions=directions)
    image = read_image(folder)
    labels, path = blobs(image.array.shape), tmp_path / f"mask{dicom.mask_ending(image)}"
    dicom.write_mask(path, labels, {1: "liver", 2: "left kidney", 3: "empty"}, image)
    seg = hd.seg.segread(path)
    uids = [note["SOPInstanceUID"] for note in image.notes["slices"]]
    pixels = seg.get_pixels_by_source_instance(uids, combine_segments=True, ignore_spatial_locations=True)
    np.testing.assert_array_equal(pixels, image.to_zyx(labels))
    ids, names = dicom.read_label_object(path, image)
    np.testing.assert_array_equal(ids, labels)
    assert names == {1: "liver", 2: "left kidney", 3: "empty"}


def test_mask_of_a_picture(tmp_path):
    image = read_image(get_testdata_file("examples_palette.dcm"))
    labels = blobs(image.array.shape[:2])
    dicom.write_mask(tmp_path / "a.dcm", labels, {1: "a", 2: "b"}, image)
    np.testing.assert_array_equal(dicom.read_label_object(tmp_path / "a.dcm", image)[0], labels[None])


def test_images_without_a_mask(tmp_path, stack, write_image):
    folder, _ = stack()
    image = read_image(folder)
    assert dicom.mask_problem(image) is None
    assert dicom.mask_problem(image.take_slice(2)) == "one slice of a DICOM series"
    write_image(tmp_path / "cine.dcm", PIXELS, Modality="US", NumberOfFrames=5)
    cine = read_image(tmp_path / "cine.dcm")
    assert "5 frames without a position" in dicom.mask_problem(cine) and cine.kind == "volume"
    assert dicom.mask_problem(cine.take_slice(2)) == "one slice of a DICOM series"
    for number, place in enumerate((range(5), range(5, 10))):
        multi_frame(tmp_path / "two" / f"{number}.dcm", write_image, place)
    assert "2 multi-frame files" in dicom.mask_problem(read_image(tmp_path / "two"))
    np.savez(tmp_path / "a.npz", imgs=PIXELS[0])
    assert "no DICOM image" in dicom.mask_problem(read_image(tmp_path / "a.npz"))


def test_label_objects_need_their_image(tmp_path, stack):
    folder, _ = stack()
    image = read_image(folder)
    dicom.write_mask(tmp_path / "mask.dcm", blobs((5, 6, 7)), {1: "a", 2: "b"}, image)
    with pytest.raises(InputError, match="without its image; allowed: a SEG or RTSTRUCT beside its image series"):
        read_labels(tmp_path / "mask.dcm")
    with pytest.raises(InputError, match="no DICOM image but a SEG"):
        read_image(tmp_path / "mask.dcm")
    with pytest.raises(InputError, match="Modality: found 'CT'; allowed: SEG or RTSTRUCT"):
        dicom.read_label_object(folder / "0.dcm", image)
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match="Modality: found ''"):
        dicom.read_label_object(tmp_path / "a.txt", image)
    np.savez(tmp_path / "a.npz", imgs=PIXELS)
    with pytest.raises(InputError, match="the DICOM series that the labels were drawn on"):
        dicom.read_label_object(tmp_path / "mask.dcm", read_image(tmp_path / "a.npz"))
