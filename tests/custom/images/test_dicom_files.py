import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from custom.errors import InputError
from custom.images import dicom_files
from custom.images.dicom import list_series, read_series

PIXELS = np.random.default_rng(1).integers(0, 2000, (5, 6, 7)).astype(np.int16)  # KxRxC


@pytest.fixture
def parsed(monkeypatch):
    """Return the list of the names of files whose pixels are read from now on."""
    names, dcmread = [], dicom_files.dcmread

    def read(file, **options):
        if not options["stop_before_pixels"]:
            names.append(Path(file.name).name)
        return dcmread(file, **options)

    monkeypatch.setattr(dicom_files, "dcmread", read)
    return names


@pytest.fixture
def several(tmp_path, write_stack, write_image):
    """Write two stacks and a picture, and other files; return the folder."""
    folder = tmp_path / "several"
    write_stack(folder / "a", PIXELS, SeriesNumber=2, SeriesDescription="Chest")
    write_stack(folder / "b", PIXELS[:4], SeriesInstanceUID="1.8", SeriesNumber=3, SeriesDescription="Neck")
    write_image(folder / "c" / "ray", PIXELS[0], Modality="DX", SeriesInstanceUID="1.9", SeriesNumber="3")
    write_image(folder / "d.dcm", PIXELS[0].view(np.uint16), Modality="SEG", SeriesInstanceUID="1.10")
    (folder / "notes.txt").write_text("x" * 300)
    return folder


def test_listing(tmp_path, write_stack, write_image):
    write_stack(tmp_path / "ct", PIXELS)
    write_image(tmp_path / "x" / "ray", PIXELS[0], Modality="DX", SeriesInstanceUID="1.9")
    (tmp_path / "notes.txt").write_text("x" * 300)
    (tmp_path / "x" / "empty").touch()
    whole = (tmp_path / "ct" / "0.dcm").read_bytes()
    (tmp_path / "z.dcm").write_bytes(whole[:250])
    listing = list_series(tmp_path)
    assert [(s.uid, s.kind, len(s.files), s.image, s.positioned) for s in listing.series] == [
        ("1.2.3.4", "CT", 5, True, True),
        ("1.9", "DX", 1, True, False),
    ]
    assert listing.others == 2 and [error.source for error in listing.unreadable] == [str(tmp_path / "z.dcm")]
    series = read_series(tmp_path, "1.2.3.4")
    assert [line.partition(": ")[0] for line in series.unreadable] == [str(tmp_path / "z.dcm")]
    with pytest.raises(InputError, match="no such folder"):
        list_series(tmp_path / "none")


def test_dicomdir_is_no_series():
    folder = pydicom.data.get_testdata_file("dicomdirtests/DICOMDIR").removesuffix("DICOMDIR")
    assert all("DICOMDIR" not in file for series in list_series(folder).series for file in series.files)


def test_several_series_are_listed(several):
    with pytest.raises(InputError) as error:
        read_series(several)
    assert error.value.found == "3 image series"
    assert error.value.allowed == (
        "the UID, number or description of one of: 1.2.3.4 (number 2, CT, Chest, 5 files); "
        "1.8 (number 3, CT, Neck, 4 files); 1.9 (number 3, DX, 1 file)"
    )


@pytest.mark.parametrize(
    ("series", "uid"),
    [("1.2.3.4", "1.2.3.4"), ("1.9", "1.9"), ("2", "1.2.3.4"), ("neck", "1.8"), (" Chest ", "1.2.3.4")],
)
def test_a_series_is_chosen(several, series, uid):
    assert read_series(several, series).uid == uid


@pytest.mark.parametrize(
    ("series", "found"),
    [
        ("3", "'3', which 2 series"),
        ("4", "'4', which 0 series"),
        ("1.10", "'1.10', which 0 series"),
        ("", "'', which 0 series"),
    ],
)
def test_a_choice_that_is_no_choice(several, series, found):
    with pytest.raises(InputError, match=rf"{found} answer to; allowed: .*1\.8 \(number 3"):
        read_series(several, series)


def test_choice_where_there_is_none(tmp_path, write_image):
    write_image(tmp_path / "a.dcm", PIXELS[0], SeriesNumber=7)
    assert read_series(tmp_path / "a.dcm", "7").uid == "1.2.3.4"
    with pytest.raises(InputError, match=r"series: found '8'; allowed: 1\.2\.3\.4 \(number 7, CT, 1 file\)"):
        read_series(tmp_path / "a.dcm", "8")


def test_no_image_series(tmp_path, write_image):
    write_image(tmp_path / "a" / "a.dcm", PIXELS[0].view(np.uint16), Modality="SEG")
    (tmp_path / "a" / "b.txt").touch()
    with pytest.raises(InputError, match=r"found no image series in 2 files \(1 are not DICOM\)"):
        read_series(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.dcm").write_bytes((tmp_path / "a" / "a.dcm").read_bytes()[:250])
    with pytest.raises(InputError, match=r"b/a\.dcm: SeriesInstanceUID: found nothing"):
        read_series(tmp_path / "b")


def test_every_file_is_opened_once(several, opened):
    read_series(several, "1.2.3.4")
    files = sorted(str(path) for path in several.rglob("*") if path.is_file())
    assert sorted(file for file in opened if file.startswith(str(several))) == files


def test_every_listed_file_is_opened_once(several, opened):
    files = sorted(str(path) for path in (several / "a").iterdir())
    read_series(files)
    assert sorted(file for file in opened if file.startswith(str(several))) == files


def test_pixels_of_other_series_are_not_read(several, parsed):
    read_series(several, "1.8")
    assert sorted(parsed) == ["0.dcm", "1.dcm", "2.dcm", "3.dcm"]
    parsed.clear()
    with pytest.raises(InputError, match="3 image series"):
        read_series(several)
    assert len(parsed) == 5  # of the first, before there was a second
    parsed.clear()
    list_series(several)
    assert not parsed


def test_headers_have_no_pixels(several):
    series = read_series(several, "1.2.3.4")
    assert [header.SOPInstanceUID for header in series.headers] == list(series.sop_uids)
    assert [header.Rows for header in series.headers] == [6] * 5
    assert not any("PixelData" in header for header in series.headers)


def test_instance_numbers(tmp_path, write_stack):
    write_stack(tmp_path, PIXELS, edit=lambda k: {"InstanceNumber": None if k == 1 else 10 - k})
    assert read_series(tmp_path).instance_numbers == (10, None, 8, 7, 6)


def test_pixels_beyond_the_limit_are_not_kept(several, monkeypatch, parsed):
    monkeypatch.setenv("MCP_MEDSAM_MAX_BYTES", "200")  # two slices and a half
    with pytest.raises(InputError, match="3 image series"):
        read_series(several)
    with pytest.raises(InputError, match="pixels of the series: found 420 bytes"):
        read_series(several, "Chest")


def test_a_file_with_a_broken_end(several):
    path = several / "a" / "0.dcm"
    path.write_bytes(path.read_bytes() + b"\xfc\xff\xfc\xffOB\0\0")  # an element without its length
    with pytest.raises(InputError, match=r"a/0\.dcm: file: found"):
        read_series(several, "Chest")


# --- without preamble ---


def bare(folder, name, dataset, syntax):
    """Write only a data set, without preamble and file meta information."""
    content = io.BytesIO()
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    if not little:
        dataset["PixelData"].value = PIXELS[0].astype(">i2").tobytes()
    body = Dataset(dataset)
    pydicom.dcmwrite(content, body, implicit_vr=implicit, little_endian=little)
    (folder / name).write_bytes(content.getvalue())
    return folder / name


@pytest.mark.parametrize("name", ["a.dcm", "IM0001", "1.2.840.1", "a.IMA"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_without_preamble(tmp_path, write_image, syntax, name):
    dataset = write_image(tmp_path / "x" / "x.dcm", PIXELS[0])
    path = bare(tmp_path, name, dataset, syntax)
    series = read_series(path)
    np.testing.assert_array_equal(series.array[0], PIXELS[0])
    assert series.headers[0].file_meta.TransferSyntaxUID == syntax


def test_file_without_transfer_syntax(tmp_path, write_image):
    path = tmp_path / "a.dcm"
    write_image(path, PIXELS[0])
    content = path.read_bytes()
    place = content.index(b"\x02\x00\x10\x00UI")  # made an unknown element
    path.write_bytes(content[:place] + b"\x02\x00\xf0\x00" + content[place + 4 :])
    np.testing.assert_array_equal(read_series(path).array[0], PIXELS[0])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", None),
        ("IM0001", b"\x08\0\0\0\x04\0\0\0" + bytes(range(200))),
        ("IM0001", np.arange(8, 99, dtype="<u4").tobytes()),
        ("IM0001", b"\x08\0"),
        ("IM0001", b"\x08\0\x05\0CS\x0a\0ISO_IR 100"),  # a data set without a series
    ],
)
def test_other_files_without_preamble(tmp_path, write_image, name, content):
    if content is None:
        dataset = write_image(tmp_path / "x" / "x.dcm", PIXELS[0])
        content = bare(tmp_path / "x", "y", dataset, ExplicitVRLittleEndian).read_bytes()
    folder = tmp_path / "y"
    folder.mkdir()
    (folder / name).write_bytes(content)
    listing = list_series(folder)
    assert (listing.series, listing.unreadable, listing.others) == ((), (), 1)


# --- DICOMDIR ---


@pytest.fixture
def medium(tmp_path, several):
    """Write a file set of two series as pydicom does; return its DICOMDIR."""
    files = FileSet()
    for path in sorted((several / "a").iterdir()) + sorted((several / "c").iterdir()):
        dataset = pydicom.dcmread(path)
        for keyword in ("PatientName", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
            setattr(dataset, keyword, "20240101" if keyword == "StudyDate" else "")
        dataset.InstanceNumber, dataset.StudyID, dataset.StudyTime = 1, "1", "10"
        files.add(dataset)
    files.write(tmp_path / "medium")
    return tmp_path / "medium" / "DICOMDIR"


def test_dicomdir(medium, several, opened):
    (medium.parent / "other.dcm").write_bytes((several / "b" / "0.dcm").read_bytes())
    with pytest.raises(InputError, match="2 image series.*number 2, CT, Chest, 5 files.*number 3, DX, 1 file"):
        read_series(medium)
    del opened[:]
    series = read_series(medium, "chest")
    np.testing.assert_array_equal(series.array, read_series(several, "chest").array)
    here = [file for file in opened if file.startswith(str(medium.parent))]
    assert len(here) == len(set(here)) == 7 and str(medium.parent / "other.dcm") not in here


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-reordered"])
def test_dicomdirs_of_pydicom(name):
    path = pydicom.data.get_testdata_file(f"dicomdirtests/{name}")
    assert len(read_series(path, "SmartScore - Gated 0.5 sec").files) == 5


def directory(path, *names):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2"
    dataset.SOPClassUID, dataset.DirectoryRecordSequence = MediaStorageDirectoryStorage, []
    for parts in names:
        record = Dataset()
        record.ReferencedFileID = parts
        dataset.DirectoryRecordSequence.append(record)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("parts", [["..", "several", "d.dcm"], ["a", "..", "..", "several"], ["/etc", "passwd"]])
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_dicomdir_that_names_files_elsewhere(tmp_path, several, opened, parts):
    (tmp_path / "in").mkdir()
    path = directory(tmp_path / "in" / "DICOMDIR", parts)
    del opened[:]
    with pytest.raises(InputError, match="ReferencedFileID: found .*; allowed: files in the folder of the DICOMDIR"):
        read_series(path)
    assert [file for file in opened if file.startswith((str(tmp_path), "/etc/passwd"))] == [str(path)]


def test_dicomdir_that_names_missing_files(tmp_path, write_image):
    write_image(tmp_path / "A", PIXELS[0])
    path = directory(tmp_path / "DICOMDIR", "A", "B", "A", "DICOMDIR")
    series = read_series(path)
    assert len(series.files) == 1 and series.unreadable[0].startswith(f"{tmp_path / 'B'}: file: found no such file")
    (tmp_path / "A").unlink()
    with pytest.raises(InputError, match="A: file: found no such file"):
        read_series(path)


def test_dicomdir_among_the_files_of_a_series(tmp_path, write_image):
    write_image(tmp_path / "A", PIXELS[0])
    with pytest.raises(InputError, match="no DICOM image but a DICOMDIR"):
        read_series([tmp_path / "A", directory(tmp_path / "DICOMDIR", "A")])
