"""Small files that need much memory or time, refer to other files, or have another format than they claim."""

import gzip
import io
import struct
import tracemalloc
import zipfile
import zlib

import imagecodecs
import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLSLossless

from custom.errors import InputError
from custom.images import codestream, dicom_rtstruct
from custom.images.arrays import read_npz_arrays
from custom.images.dicom import read_series
from custom.images.dicom_files import read_header
from custom.images.dicom_rtstruct import fill_outlines
from custom.images.formats import format_of
from custom.images.reading import read_labels

GREY = np.arange(32 * 48, dtype=np.uint8).reshape(32, 48)
LITTLE = 20_000_000  # bytes


def read(path):
    """Return the values of an image file."""
    return format_of(path).read(str(path)).array


@pytest.fixture
def refused():
    """Return a function that reads a file, which must be refused with little memory, and returns the message."""

    def refuse(reader, *arguments):
        tracemalloc.start()
        try:
            with pytest.raises(InputError) as error:
                reader(*arguments)
            assert tracemalloc.get_traced_memory()[1] < LITTLE
        finally:
            tracemalloc.stop()
        return str(error.value)

    return refuse


# --- npz ---


def npz(path, *, shape, descr="|u1", content=b"", kind=zipfile.ZIP_DEFLATED):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("imgs.npy", header.getvalue() + content)
    return path


def test_npz_that_declares_more_than_the_limit(tmp_path, refused):
    path = npz(tmp_path / "a.npz", shape=(10**6, 10**6))
    assert "imgs.npy: found 1000000000000 bytes in memory" in refused(read_npz_arrays, path, ["imgs"])


def test_npz_that_declares_more_than_its_length_can_hold(tmp_path, refused):
    path = npz(tmp_path / "a.npz", shape=(2**31,))
    assert "size: found 2147483648 bytes declared" in refused(read_npz_arrays, path, ["imgs"])


def test_npz_that_unpacks_to_more_than_the_limit(tmp_path, refused, monkeypatch):
    path = npz(tmp_path / "a.npz", shape=(2**25,), content=bytes(2**25))
    assert path.stat().st_size < 10**5
    monkeypatch.setenv("MCP_MEDSAM_MAX_BYTES", str(2**24))
    assert "MCP_MEDSAM_MAX_BYTES raises it" in refused(read_npz_arrays, path, ["imgs"])
    monkeypatch.setenv("MCP_MEDSAM_MAX_BYTES", str(2**25))
    assert read_npz_arrays(path, ["imgs"])["imgs"].shape == (2**25,)


def test_npz_of_values_without_bytes(tmp_path, refused):
    path = npz(tmp_path / "a.npz", shape=(10**15,), descr="|S0")
    assert "imgs.npy" in refused(read_npz_arrays, path, ["imgs"])


def test_npz_of_other_compressions(tmp_path, refused):
    path = npz(tmp_path / "a.npz", shape=(9,), content=bytes(9), kind=zipfile.ZIP_LZMA)
    assert "an unusual compression" in refused(read_npz_arrays, path, ["imgs"])


# --- NIfTI ---


def nifti(path, *, shape=(4, 5, 6), dtype=np.uint8, change=None, tail=b""):
    """Write a header that declares ``shape`` before the voxels of a small volume."""
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_sform(np.eye(4), code=1)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    if change is not None:
        change(header)
    content = header.binaryblock + b"\0\0\0\0" + tail + bytes(120)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_dimensions(tmp_path, refused, name):
    read(nifti(tmp_path / name))
    huge = nifti(tmp_path / name, shape=(30_000, 30_000, 30_000))
    assert "size: found 30000 x 30000 x 30000" in refused(read, huge)
    long = nifti(tmp_path / name, shape=(1000, 1000, 1000))
    assert "size: found 1000000352 bytes declared" in refused(read, long)


def test_scaled_nifti_counts_as_the_real_numbers_it_becomes(tmp_path, refused, monkeypatch):
    monkeypatch.setenv("MCP_MEDSAM_MAX_BYTES", "500")
    assert read(nifti(tmp_path / "a.nii")).size == 120
    scaled = nifti(tmp_path / "b.nii", change=lambda header: header.set_slope_inter(2.0, 1.0))
    assert "960 bytes in memory" in refused(read, scaled)


def test_extensions_of_a_nifti_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(nib.nifti1.Nifti1Extensions, "from_fileobj", None)
    assert read(nifti(tmp_path / "a.nii")).shape == (6, 5, 4)


def test_other_formats_named_nifti(tmp_path, refused):
    path = tmp_path / "a.nii"
    nib.save(nib.AnalyzeImage(np.zeros((3, 4, 5), np.uint8), np.eye(4)), tmp_path / "b.img")
    path.write_bytes((tmp_path / "b.hdr").read_bytes() + bytes(999))
    assert "no NIfTI header" in refused(read, path)


# --- pictures ---


def jpeg(path):
    file = io.BytesIO()
    Image.fromarray(GREY).save(file, "JPEG")
    content = bytearray(file.getvalue())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", 65_000, 65_000)
    path.write_bytes(content)


def bmp(path):
    Image.fromarray(GREY).save(path)
    content = bytearray(path.read_bytes())
    content[18:26] = struct.pack("<ii", 100_000, 100_000)
    path.write_bytes(content)


@pytest.mark.parametrize(("name", "write"), [("a.jpg", jpeg), ("a.bmp", bmp)])
@pytest.mark.parametrize("reader", [read, read_labels])
def test_pictures_of_gigantic_size(tmp_path, refused, name, write, reader):
    write(tmp_path / name)
    assert "pixels" in refused(reader, tmp_path / name)


def test_a_raised_limit_is_also_pillows(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    monkeypatch.setenv("MCP_MEDSAM_MAX_PIXELS", "100")  # Pillow itself refuses twice this number
    with pytest.raises(InputError, match=r"exceeds limit|MCP_MEDSAM_MAX_PIXELS raises it"):
        read(tmp_path / "a.png")
    monkeypatch.setenv("MCP_MEDSAM_MAX_PIXELS", str(GREY.size))
    assert read(tmp_path / "a.png").shape == (1, 32, 48)


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM", "TIFF"])
def test_pictures_of_other_formats(tmp_path, refused, kind):
    Image.fromarray(GREY).save(tmp_path / "a.png", kind)
    assert "cannot identify image file" in refused(read, tmp_path / "a.png")


# --- TIFF ---


def test_gigantic_tiles(tmp_path, refused):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, tile=(32, 48), compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("TileWidth", "TileLength"):
            file.pages[0].tags[name].overwrite(60_000)
    assert "tile: found 3600000000 pixels" in refused(read, path)


def test_tiff_of_pictures_of_their_own_size(tmp_path, refused):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, compression="jpeg2000")
    assert "compression: found" in refused(read, path)


def test_tiff_that_names_other_files(tmp_path):
    """The other file is not opened: it would have added a page."""
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "secret.ome.tif", GREY + 1, metadata={"axes": "YX"})
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="48" SizeY="32" SizeZ="2"'
        ' SizeC="1" SizeT="1"><TiffData FirstZ="0" IFD="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:1</UUID>'
        '</TiffData><TiffData FirstZ="1" IFD="0" PlaneCount="1"><UUID FileName="../secret.ome.tif">urn:uuid:2</UUID>'
        "</TiffData></Pixels></Image></OME>"
    )
    path = tmp_path / "in" / "a.ome.tif"
    tifffile.imwrite(path, GREY, description=xml, metadata=None)
    assert (tifffile.imread(path)[1] == GREY + 1).all()  # what tifffile would do
    np.testing.assert_array_equal(read(path), GREY[None])


def enlarged(content, *, marker=b"\xff\xc0"):
    """Let a JPEG declare 65,000 x 65,000 pixels."""
    changed = bytearray(content)
    place = changed.index(marker) + 5
    changed[place : place + 4] = struct.pack(">HH", 65_000, 65_000)
    return bytes(changed)


def test_jpegs_in_a_tiff_that_are_larger_than_it(tmp_path, refused):
    """The decoder decodes all of the larger picture, 4 GB, and crops it."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.stack([GREY] * 3), compression="jpeg", photometric="minisblack")
    assert read(path).shape == (3, 32, 48)
    path.write_bytes(enlarged(path.read_bytes()))
    assert "size of a compressed picture: found 4225000000 pixels" in refused(read, path)


# --- compressed pictures ---


@pytest.mark.parametrize(
    ("codec", "options"),
    [("jpeg", {}), ("jpegls", {}), ("jpeg2k", {"codecformat": "j2k"}), ("jpeg2k", {"codecformat": "jp2"})],
)
@pytest.mark.parametrize("shape", [(32, 48), (32, 48, 3)])
def test_sizes_of_codestreams(codec, options, shape):
    image = np.zeros(shape, np.uint8)
    encoded = bytes(getattr(imagecodecs, f"{codec}_encode")(image, **options))
    assert codestream._samples(encoded) == 32 * 48 * 4


def test_garbage_between_markers_is_skipped_as_decoders_do():
    content = bytes(imagecodecs.jpeg_encode(GREY))
    comment = b"\xff\xfe\x00\x0a" + b"\xff\xc0" * 4  # bytes inside a segment are not markers
    changed = content[:2] + b"\x00\x01" + comment + b"\xff\xff" + content[2:]
    assert codestream._samples(changed) == 32 * 48 * 4
    assert codestream._samples(enlarged(content)) == 65_000**2 * 4
    for end in range(len(content)):
        codestream._samples(content[:end])  # cut off anywhere


# --- DICOM ---


@pytest.mark.parametrize(
    ("syntax", "codec", "marker"),
    [(JPEGBaseline8Bit, "jpeg", b"\xff\xc0"), (JPEGLSLossless, "jpegls", b"\xff\xf7")],
)
def test_frames_that_are_larger_than_the_image(tmp_path, refused, write_image, syntax, codec, marker):
    path = tmp_path / "a" / "1.dcm"
    encoded = bytes(getattr(imagecodecs, f"{codec}_encode")(GREY))
    for content in (encoded, enlarged(encoded, marker=marker)):
        dataset = write_image(path, GREY)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.add_new("PixelData", "OB", encapsulate([content]))
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path, enforce_file_format=True)
        if content is encoded:
            assert read_series(path.parent).array.shape == (1, 32, 48)
    assert "size of a compressed picture: found" in refused(read_series, path.parent)


def test_gigantic_dicom_images(tmp_path, refused, write_image):
    write_image(tmp_path / "a" / "1.dcm", GREY, Rows=65_535, Columns=65_535)
    assert "size: found 1 x 65535 x 65535" in refused(read_series, tmp_path / "a")
    write_image(tmp_path / "b" / "1.dcm", GREY[:1, :1], NumberOfFrames=2**31 - 1)
    assert "slices or frames" in refused(read_series, tmp_path / "b")
    write_image(tmp_path / "c" / "1.dcm", GREY, NumberOfFrames=2000, Rows=5000, Columns=5000)
    assert "50000000000 bytes in memory" in refused(read_series, tmp_path / "c")
    write_image(tmp_path / "d" / "1.dcm", GREY, NumberOfFrames=-1)
    assert "NumberOfFrames: found -1" in refused(read_series, tmp_path / "d")


def test_deflated_dicom(tmp_path, write_image, monkeypatch, refused):
    path = tmp_path / "a.dcm"
    dataset = write_image(path, np.zeros((1000, 1000), np.uint8))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    assert path.stat().st_size < 10**4 and read_header(str(path)).Rows == 1000
    monkeypatch.setenv("MCP_MEDSAM_MAX_BYTES", "1000000")
    assert "deflated file, unpacked" in refused(read_header, str(path))


def test_malformed_values_of_a_header(tmp_path, write_image):
    """pydicom checks values when they are accessed, long after the file is read."""
    write_image(tmp_path / "1.dcm", GREY, SeriesDescription="x", PatientID="aaaaaaaa")
    content = (tmp_path / "1.dcm").read_bytes()
    (tmp_path / "1.dcm").write_bytes(content.replace(b"LO\x08\0aaaaaaaa", b"FD\x08\0aaaaaaaa"))
    read_series(tmp_path / "1.dcm")  # a number where a name should be is still a value
    broken = content.replace(b"US\x02\0" + struct.pack("<H", 32), b"US\x01\0" + struct.pack("<H", 32)[:1])
    (tmp_path / "1.dcm").write_bytes(broken)
    with pytest.raises(InputError):
        read_series(tmp_path / "1.dcm")


def test_outlines_are_filled_part_by_part(monkeypatch):
    angle = np.linspace(0, 2 * np.pi, 500, endpoint=False)
    circles = [np.stack([20 + r * np.sin(angle), 25 + r * np.cos(angle)], axis=1) for r in (15.3, 7.1)]
    corner, mask = fill_outlines(circles, (40, 50))
    monkeypatch.setattr(dicom_rtstruct, "_AT_ONCE", 64)
    again, parts = fill_outlines(circles, (40, 50))
    assert corner == again and mask.sum() > 400
    np.testing.assert_array_equal(mask, parts)


def test_many_large_structures(tmp_path, write_stack, monkeypatch):
    write_stack(tmp_path / "ct", np.zeros((2, 32, 48), np.int16))
    series = read_series(tmp_path / "ct")
    corners = np.array([[1, 1, 0, 1], [46, 1, 0, 1], [46, 30, 0, 1], [1, 30, 0, 1]])
    points = (corners @ series.geometry.affine.T)[:, :3] * (-1, -1, 1)
    contour = Dataset()
    contour.ContourGeometricType, contour.ContourData = "CLOSED_PLANAR", [f"{x:.4f}" for x in points.ravel()]
    ((_, mask),) = dicom_rtstruct._fill("x", [contour], "a", series)
    structures = Dataset()
    structures.ROIContourSequence, structures.StructureSetROISequence = [Dataset()], [Dataset()]
    structures.ROIContourSequence[0].ReferencedROINumber = structures.StructureSetROISequence[0].ROINumber = 1
    structures.ROIContourSequence[0].ContourSequence = [contour]
    (tmp_path / "a").touch()
    monkeypatch.setattr(dicom_rtstruct, "read_dataset", lambda path: structures)
    assert dicom_rtstruct.read_rtstruct(tmp_path / "a", series)[0].sum() == 30 * 46
    monkeypatch.setenv("MCP_MEDSAM_MAX_BYTES", "1000")
    with pytest.raises(InputError, match=f"ContourData: found {mask.nbytes} bytes"):
        dicom_rtstruct.read_rtstruct(tmp_path / "a", series)


@pytest.mark.slow
def test_honest_large_images(tmp_path):
    picture = np.zeros((8192, 8192, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png", compress_level=1)
    assert read(tmp_path / "a.png").shape == (1, 8192, 8192, 3)
    tifffile.imwrite(tmp_path / "a.tif", picture, compression="zlib", tile=(256, 256))
    assert read(tmp_path / "a.tif").shape == (1, 8192, 8192, 3)
    volume = np.zeros((512, 512, 1000), np.int16)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii.gz")
    assert read(tmp_path / "a.nii.gz").shape == (1000, 512, 512)
    np.savez_compressed(tmp_path / "a.npz", imgs=volume)
    assert read_npz_arrays(tmp_path / "a.npz", ["imgs"])["imgs"].shape == volume.shape


def test_deflate_unpacks_to_no_more_than_the_ratio():
    from custom.limits import DEFLATE_RATIO

    content = zlib.compress(bytes(10**7), 9)
    assert 0.95 < 10**7 / len(content) / DEFLATE_RATIO <= 1
