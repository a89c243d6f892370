"""Text headers written by hand: what they may contain, and what they must not."""

import gzip
import re
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from custom.errors import InputError
from custom.images.formats import format_of

ENDINGS = ("nrrd", "nhdr", "mha", "mhd")


def read(path, **choice):
    return format_of(path).read(str(path), **choice)


def nrrd_text(path, *lines, content=b"", **fields):
    """Write an NRRD of 2x3x4 bytes line by line; a field that is None is omitted."""
    header = {
        "type": "uint8",
        "dimension": 3,
        "sizes": "2 3 4",
        "encoding": "raw",
        "space": "right-anterior-superior",
        "space directions": "(2,0,0) (0,3,0) (0,0,4)",
        "space origin": "(5,6,7)",
    }
    header |= {name.replace("_", " "): value for name, value in fields.items()}
    text = "\n".join(["NRRD0004", *lines, *(f"{n}: {v}" for n, v in header.items() if v is not None)])
    path.write_bytes(text.encode() + b"\n\n" + content)
    return str(path)


def mha_text(path, *lines, content=b"", **fields):
    """Write a MetaImage of 2x3x4 bytes line by line; a field that is None is omitted."""
    header = {"ObjectType": "Image", "NDims": 3, "BinaryData": True, "Offset": "5 6 7", "ElementSpacing": "2 3 4"}
    header |= {"DimSize": "2 3 4", "ElementType": "MET_UCHAR", "ElementDataFile": "LOCAL"}
    last = fields.pop("ElementDataFile", header.pop("ElementDataFile"))
    header |= fields
    text = "\n".join([*lines, *(f"{n} = {v}" for n, v in header.items() if v is not None), f"ElementDataFile = {last}"])
    path.write_bytes(text.encode() + b"\n" + content)
    return str(path)


VOXELS = bytes(range(24))


def test_a_list_of_volumes_is_no_colour(tmp_path):
    """3D Slicer stores sequences and diffusion series in this way."""
    header = {"dimension": 4, "sizes": "3 2 2 2", "space_directions": "none (1,0,0) (0,1,0) (0,0,1)"}
    path = nrrd_text(tmp_path / "v.nrrd", **header, kinds="list domain domain domain", content=VOXELS)
    image = read(path, frame=2)
    np.testing.assert_array_equal(image.to_source(image.array).ravel(), np.arange(24)[2::3])
    with pytest.raises(InputError, match="4D with 3 volumes"):
        read(path)
    path = nrrd_text(tmp_path / "v.nrrd", **header, kinds="vector domain domain domain", content=VOXELS)
    assert read(path).array.shape == (2, 2, 2, 3)


def test_spaces_of_nrrd(tmp_path):
    affine = np.array([[2, 0, 0, 5], [0, 3, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    image = read(nrrd_text(tmp_path / "v.nrrd", content=VOXELS))
    np.testing.assert_allclose(image.geometry.affine, affine)
    image = read(nrrd_text(tmp_path / "v.nrrd", content=VOXELS, space="left-posterior-superior"))
    np.testing.assert_allclose(image.geometry.affine, np.diag((-1, -1, 1, 1)) @ affine)
    none = {"space": None, "space_directions": None, "space_origin": None, "spacings": "2 3 4"}
    image = read(nrrd_text(tmp_path / "v.nrrd", content=VOXELS, **none))
    np.testing.assert_allclose(image.geometry.affine, np.diag((-2, -3, 4, 1)))  # as ITK places it


# --- hostile and broken files ---


@pytest.fixture
def refused(capfd):
    """Return a function that reads a file, which must be refused in one line without output of ITK."""

    def read_it(path, **choice):
        with pytest.raises(InputError) as error:
            read(path, **choice)
        message = str(error.value)
        assert "\n" not in message and "cxx" not in message and "0x" not in message
        assert not any(capfd.readouterr())
        return message

    return read_it


@pytest.fixture
def secret(tmp_path):
    """Return a folder beside which there is a file that a header must not reach."""
    (tmp_path / "secret.raw").write_bytes(VOXELS)
    (tmp_path / "in" / "below").mkdir(parents=True)
    for name in ("in/own.raw", "in/own0.raw", "in/below/own.raw"):
        (tmp_path / name).write_bytes(VOXELS)
    return tmp_path / "in"


@pytest.mark.parametrize("name", ["../secret.raw", "below/../../secret.raw", "{folder}/../secret.raw"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_files_outside_of_the_folder(secret, refused, name, ending):
    def write(file):
        if ending in ("nrrd", "nhdr"):
            return nrrd_text(secret / f"v.{ending}", data_file=file)
        return mha_text(secret / f"v.{ending}", ElementDataFile=file)

    for file in ("own.raw", "below/own.raw", f"{secret}/own.raw"):
        assert read(write(file)).array.size == 24
    assert "own folder" in refused(write(name.format(folder=secret)))
    assert "no file 'none.raw'" in refused(write("none.raw"))


@pytest.mark.parametrize("name", ["LIST\n../secret.raw", "LIST 2\nown.raw", "own%d.raw 0 0 1", "own%01d.raw 0 0 1 2"])
def test_lists_and_patterns_of_files(secret, refused, name):
    assert "the name of one file" in refused(nrrd_text(secret / "v.nhdr", data_file=name))
    assert "the name of one file" in refused(mha_text(secret / "v.mhd", ElementDataFile=name))


HIDDEN_FROM_NRRD = (
    ["Data File: ../secret.raw"],
    ["datafile: ../secret.raw"],
    ["data file: own.raw", "data file: ../secret.raw"],
    ["data file:=own.raw", "data file: ../secret.raw"],
    ["data file: LIST", "data file: own.raw", "../secret.raw"],
    ["content: a\r\rdata file: ../secret.raw"],
    ["content: a\rdata file: ../secret.raw"],
    ["#" + 2**20 * "-", "data file: ../secret.raw"],
)


@pytest.mark.parametrize("lines", HIDDEN_FROM_NRRD, ids=range(len(HIDDEN_FROM_NRRD)))
def test_names_of_files_that_nrrd_may_hide(secret, refused, lines):
    refused(nrrd_text(secret / "v.nhdr", *lines))


HIDDEN_FROM_METAIMAGE = (
    ["Comment =", "ElementDataFile = LOCAL"],
    ["Comment = a\rElementDataFile = own.raw"],
    ["Comment", "ElementDataFile = own.raw"],
    ["Foo\0ElementDataFile = own.raw"],
    ["Comment = = ", "ElementDataFile = own.raw"],
)


@pytest.mark.parametrize("lines", HIDDEN_FROM_METAIMAGE, ids=range(len(HIDDEN_FROM_METAIMAGE)))
def test_names_of_files_that_metaimage_may_hide(secret, refused, lines):
    """ITK reads the next line as the missing value, and so another line as the name."""
    refused(mha_text(secret / "v.mhd", *lines, ElementDataFile="../secret.raw", content=VOXELS))


def test_declared_sizes(tmp_path, refused, monkeypatch):
    huge = {"nrrd": {"sizes": "30000 30000 30000"}, "mha": {"DimSize": "30000 30000 30000"}}
    long = {"nrrd": {"sizes": "1000 1000 1000"}, "mha": {"DimSize": "1000 1000 1000"}}
    packed = {"nrrd": {"encoding": "gzip"}, "mha": {"CompressedData": True, "CompressedDataSize": 24}}
    for ending, write in (("nrrd", nrrd_text), ("mha", mha_text)):
        path = tmp_path / f"v.{ending}"
        assert "size: found 30000 x 30000 x 30000" in refused(write(path, content=VOXELS, **huge[ending]))
        for more in ({}, packed[ending]):
            message = refused(write(path, content=VOXELS, **long[ending] | more))
            assert re.search(r"size: found 1000000\d{3} bytes declared", message)
        assert "bytes declared" in refused(write(path, content=VOXELS[:-1]))
        monkeypatch.setenv("MCP_MEDSAM_MAX_BYTES", "23")
        assert "MCP_MEDSAM_MAX_BYTES raises it" in refused(write(path, content=VOXELS))
        monkeypatch.delenv("MCP_MEDSAM_MAX_BYTES")
        assert read(write(path, content=VOXELS)).array.size == 24


def test_every_volume_of_a_4d_file_counts(tmp_path, refused, monkeypatch):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((6, 5, 4, 3), np.uint8), isVector=False), tmp_path / "v.nrrd")
    monkeypatch.setenv("MCP_MEDSAM_MAX_BYTES", "100")
    assert "360 bytes in memory" in refused(tmp_path / "v.nrrd", frame=0)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"encoding": "ascii"}, "encoding: found 'ascii'"),
        ({"encoding": "bzip2"}, "encoding: found 'bzip2'"),
        ({"encoding": None}, "encoding: found ''"),
        ({"type": "block", "block_size": 1}, "file"),
        ({"dimension": 2}, "file"),
        ({"dimension": 17}, "file"),
        ({"sizes": "2 -3 4"}, ""),
        ({"sizes": "2 x 4"}, "file"),
        ({"space_directions": "(1,0,0) (1,0,0) (0,0,1)"}, ""),
        ({"space_directions": "(nan,0,0) (0,1,0) (0,0,1)"}, ""),
    ],
)
def test_bad_nrrd(tmp_path, refused, fields, found):
    assert f"v.nrrd: {found}" in refused(nrrd_text(tmp_path / "v.nrrd", content=VOXELS, **fields))


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"NDims": 1, "DimSize": "24"}, "NDims: found '1'"),
        ({"NDims": 33}, "NDims: found '33'"),
        ({"NDims": None}, "NDims: found nothing"),
        ({"DimSize": "2 3"}, "DimSize: found 2 3"),
        ({"DimSize": "2 -3 4"}, "DimSize"),
        ({"DimSize": None}, "DimSize: found nothing"),
        ({"ElementType": None}, "ElementType: found nothing"),
        ({"ElementType": "MET_FOO"}, "file"),
        ({"BinaryData": False}, "BinaryData: found 'False'"),
        ({"ElementSpacing": "1 0 1"}, ""),
        ({"ElementSpacing": "nan 1 1"}, ""),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, ""),
        ({"ElementSpacing": "1 2"}, "ElementSpacing: found '1 2'; allowed: 3 finite numbers"),
        ({"Offset": "1 2 x"}, "Offset"),
        ({"CenterOfRotation": "1_0 2 3"}, "CenterOfRotation"),
        ({"ElementNumberOfChannels": "x"}, "ElementNumberOfChannels"),
        ({"HeaderSize": "x"}, "HeaderSize: found 'x'; allowed: a number of bytes"),
        ({"HeaderSize": 10**6}, "size"),
    ],
)
def test_bad_metaimage(tmp_path, refused, fields, found):
    assert f"v.mha: {found}" in refused(mha_text(tmp_path / "v.mha", content=VOXELS, **fields))


PACKED = zlib.compress(VOXELS)


@pytest.mark.parametrize(
    ("content", "size", "found"),
    [
        (PACKED, len(PACKED), None),
        (gzip.compress(VOXELS, mtime=0), len(gzip.compress(VOXELS, mtime=0)), None),
        (PACKED, len(PACKED) + 1, "size"),
        (PACKED, len(PACKED) - 1, "voxels"),
        (PACKED, None, "CompressedDataSize: found nothing"),
        (PACKED, -1, "CompressedDataSize: found -1"),
        (PACKED[:-4] + bytes(4), len(PACKED), "file"),
        (PACKED[:8] + bytes(9) + PACKED[17:], len(PACKED), "file"),
        (VOXELS, 24, "file"),
        (zlib.compress(VOXELS[:-1]), len(zlib.compress(VOXELS[:-1])), "voxels: found a stream of 23 bytes"),
        (zlib.compress(VOXELS * 2), len(zlib.compress(VOXELS * 2)), "voxels: found a stream of 48 bytes"),
    ],
)
@pytest.mark.parametrize("ending", ["mha", "mhd"])
def test_compressed_voxels_of_metaimage(tmp_path, refused, ending, content, size, found):
    """For a broken stream ITK returns whatever was in memory."""
    fields = {"CompressedData": True, "CompressedDataSize": size}
    if ending == "mhd":
        (tmp_path / "v.zraw").write_bytes(content)
        fields["ElementDataFile"] = "v.zraw"
    path = mha_text(tmp_path / f"v.{ending}", content=b"" if ending == "mhd" else content, **fields)
    if found is None or (ending == "mhd" and size is None):
        np.testing.assert_array_equal(read(path).geometry.restore(read(path).array).T.ravel(), np.arange(24))
    else:
        assert found in refused(path)


@pytest.mark.parametrize(
    "content", [gzip.compress(VOXELS, mtime=0)[:-10], gzip.compress(VOXELS[:-1], mtime=0), b"\x1f\x8b" + VOXELS]
)
def test_broken_streams_of_nrrd(tmp_path, refused, content):
    assert "v.nrrd: file" in refused(nrrd_text(tmp_path / "v.nrrd", encoding="gzip", content=content))
    whole = nrrd_text(tmp_path / "v.nrrd", encoding="gzip", content=gzip.compress(VOXELS, mtime=0))
    assert read(whole).array.size == 24


def test_order_of_keys(tmp_path, refused):
    early = mha_text(tmp_path / "v.mha", "DimSize = 2 3 4", DimSize=None, content=VOXELS)
    assert "DimSize: found before NDims" in refused(early)
    assert "NDims: found two of them" in refused(mha_text(tmp_path / "v.mha", "NDims = 3", content=VOXELS))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"P5 2 2 255\n1234", b"# vtk DataFile Version 3.0\nx\nBINARY\n", b"\x89PNG\r\n\x1a\n"]
)
def test_other_formats_go_to_no_decoder(tmp_path, refused, ending, content, monkeypatch):
    monkeypatch.setattr(sitk, "ImageFileReader", None)
    (tmp_path / f"v.{ending}").write_bytes(content)
    refused(tmp_path / f"v.{ending}")


def test_pixels_that_are_no_numbers(tmp_path, refused):
    for ending in ("nrrd", "mha"):
        sitk.WriteImage(sitk.GetImageFromArray(np.ones((5, 4, 3), np.complex64)), tmp_path / f"v.{ending}")
        refused(tmp_path / f"v.{ending}")
