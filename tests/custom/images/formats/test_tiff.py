import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from custom.errors import InputError
from custom.images.formats import format_of, tiff
from custom.images.geometry import Geometry
from custom.images.image import Image as Source
from custom.images.reading import read_image

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (6, 7), np.uint8)
GREY16 = RNG.integers(0, 65536, (6, 7), np.uint16)
RGB = RNG.integers(0, 256, (6, 7, 3), np.uint8)
STACK8, STACK16 = RNG.integers(0, 256, (4, 6, 7), np.uint8), RNG.integers(0, 65536, (4, 6, 7), np.uint16)


def values_of(path):
    return tiff.read(path).array


def label_of(path):
    return tiff.read(path, labels=True).array


@pytest.mark.parametrize("ending", ["tif", "tiff", "TIF"])
@pytest.mark.parametrize("array", [GREY8, RGB], ids=["grey", "rgb"])
def test_pictures_of_pillow(tmp_path, ending, array):
    Image.fromarray(array).save(tmp_path / f"p.{ending}")
    assert format_of(tmp_path / f"p.{ending}") is tiff
    image = read_image(tmp_path / f"p.{ending}")
    assert (image.kind, image.format, image.spacing, image.notes) == ("picture", "tiff", None, {})
    np.testing.assert_array_equal(image.array, array)


@pytest.mark.parametrize(
    "array",
    [GREY8, GREY16, GREY16.astype(">u2"), GREY16.astype(np.float32) / 7, RGB, RGB.astype(np.uint16) * 257]
    + [STACK8, STACK16, STACK16.astype(np.int16), STACK16.astype(np.float32), np.stack([RGB, RGB[::-1]])],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_values(tmp_path, array, compression):
    colours = "rgb" if array.shape[-1] == 3 else "minisblack"
    byteorder = ">" if array.dtype.str.startswith(">") else "<"
    tifffile.imwrite(
        tmp_path / "p.tif", array, photometric=colours, compression=compression, byteorder=byteorder, metadata=None
    )
    image, stack = tiff.read(tmp_path / "p.tif"), array.ndim - (colours == "rgb") == 3
    np.testing.assert_array_equal(image.array, array if stack else array[None])
    assert image.kind == ("volume" if stack else "picture")
    assert image.array.dtype == array.dtype.newbyteorder("=") and image.array.dtype.isnative


def test_colours(tmp_path):
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(values_of(path)[0], RGB)
    tifffile.imwrite(path, np.dstack([RGB, GREY8]), photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(values_of(path)[0], RGB)
    tifffile.imwrite(path, GREY8, photometric="miniswhite")
    np.testing.assert_array_equal(values_of(path)[0], 255 - GREY8)
    np.testing.assert_array_equal(label_of(path)[0], GREY8)
    Image.fromarray(np.dstack([GREY8, GREY8[::-1]]), "LA").save(path)
    np.testing.assert_array_equal(values_of(path)[0], GREY8)
    Image.fromarray(GREY8 > 99).save(path)
    np.testing.assert_array_equal(values_of(path)[0], (GREY8 > 99) * 255)
    np.testing.assert_array_equal(label_of(path)[0], GREY8 > 99)
    tifffile.imwrite(path, np.kron(RGB, np.ones((8, 8, 1), np.uint8)), photometric="rgb", compression="jpeg")
    assert tifffile.TiffFile(path).pages[0].photometric == tifffile.PHOTOMETRIC.YCBCR
    np.testing.assert_allclose(values_of(path)[0], np.asarray(Image.open(path).convert("RGB")), atol=2)


def test_palette(tmp_path):
    path, colours = tmp_path / "p.tif", RNG.integers(0, 256, (256, 3), np.uint8)
    tifffile.imwrite(path, GREY8, photometric="palette", colormap=colours.T.astype(np.uint16) * 257)
    np.testing.assert_array_equal(values_of(path)[0], colours[GREY8])
    np.testing.assert_array_equal(label_of(path)[0], GREY8)
    ramp = np.arange(255, -1, -1, dtype=np.uint16) * 257
    tifffile.imwrite(path, GREY8, photometric="palette", colormap=np.stack([ramp] * 3))
    np.testing.assert_array_equal(values_of(path)[0], 255 - GREY8)


# --- orientation ---


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_a_picture_is_turned_upright_and_its_spacing_with_it(tmp_path, orientation):
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "p.ome.tif", GREY8, metadata=OME | {"axes": "YX"}, extratags=tags)
    image = read_image(tmp_path / "p.ome.tif")
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(GREY8).save(tmp_path / "p.png", exif=exif)
    np.testing.assert_array_equal(image.array, np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "p.png"))))
    assert image.notes == ({"exif_orientation": orientation, "upright": True} if 1 < orientation < 9 else {})
    assert image.source_spacing == ((0.0007, 0.0005) if 4 < orientation < 9 else (0.0005, 0.0007))


# --- spacing ---


@pytest.mark.parametrize("stack", [STACK8, STACK16, STACK16.astype(np.float32)], ids=lambda stack: str(stack.dtype))
@pytest.mark.parametrize(("unit", "mm"), [("um", 1e-3), ("micron", 1e-3), ("\\u00B5m", 1e-3), ("mm", 1), ("cm", 10)])
def test_imagej_stack_with_spacing(tmp_path, stack, unit, mm):
    path = tmp_path / "s.tif"
    metadata = {"axes": "ZYX", "spacing": 2.5, "unit": unit}
    tifffile.imwrite(path, stack, imagej=True, metadata=metadata, resolution=(4, 2))  # pixels per unit, x and y
    image = tiff.read(path)
    np.testing.assert_array_equal(image.array, stack)
    np.testing.assert_allclose(image.spacing, np.multiply((2.5, 0.5, 0.25), mm))


@pytest.mark.parametrize(
    "metadata",
    [
        {"unit": "um"},
        {"spacing": 2.0},
        {"spacing": 2.0, "unit": "pixel"},
        {"spacing": 2.0, "unit": "inch"},
        {"spacing": 0.0, "unit": "um"},
        {"spacing": 2.0, "unit": "um", "axes": "TYX"},
    ],
)
def test_imagej_stack_without_spacing(tmp_path, metadata):
    tifffile.imwrite(tmp_path / "s.tif", STACK8, imagej=True, metadata={"axes": "ZYX"} | metadata, resolution=(4, 2))
    assert tiff.read(tmp_path / "s.tif").spacing is None


def test_imagej_picture(tmp_path):
    metadata = {"axes": "YX", "unit": "mm"}
    tifffile.imwrite(tmp_path / "p.tif", GREY8, imagej=True, metadata=metadata, resolution=(4, 2))
    assert tiff.read(tmp_path / "p.tif").spacing == (1.0, 0.5, 0.25)
    assert read_image(tmp_path / "p.tif").spacing == (0.5, 0.25)


@pytest.mark.parametrize("array", [GREY8, STACK8], ids=["picture", "stack"])
def test_a_resolution_alone_is_no_spacing(tmp_path, array):
    tifffile.imwrite(tmp_path / "s.tif", array, resolution=(4, 2), resolutionunit="CENTIMETER")
    assert tiff.read(tmp_path / "s.tif").spacing is None


OME = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.7}


@pytest.mark.parametrize(
    ("metadata", "spacing"),
    [
        (OME | {"PhysicalSizeZ": 2}, (0.002, 0.0007, 0.0005)),  # in µm if no unit is given
        (OME | {"PhysicalSizeZ": 2} | {f"PhysicalSize{axis}Unit": "mm" for axis in "XYZ"}, (2.0, 0.7, 0.5)),
        (OME | {"PhysicalSizeZ": 3, "PhysicalSizeZUnit": "nm"}, (3e-6, 0.0007, 0.0005)),
        (OME, None),
        (OME | {"PhysicalSizeZ": 2, "PhysicalSizeZUnit": "reference frame"}, None),
        (OME | {"PhysicalSizeZ": 2, "axes": "TYX"}, None),
    ],
)
def test_ome_stack(tmp_path, metadata, spacing):
    tifffile.imwrite(tmp_path / "s.ome.tif", STACK8, metadata={"axes": "ZYX"} | metadata)
    assert tiff.read(tmp_path / "s.ome.tif").spacing == spacing


@pytest.mark.parametrize(
    ("metadata", "spacing"),
    [(OME, (0.0007, 0.0005)), (OME | {"PhysicalSizeXUnit": "cm"}, (0.0007, 5.0)), ({"PhysicalSizeX": 1.0}, None)],
)
def test_ome_picture(tmp_path, metadata, spacing):
    tifffile.imwrite(tmp_path / "p.ome.tif", GREY8, metadata={"axes": "YX"} | metadata)
    assert read_image(tmp_path / "p.ome.tif").spacing == spacing


@pytest.mark.parametrize("entity", ["", '<!ENTITY a SYSTEM "file:///etc/passwd">', '<!ENTITY a "aaaa">'])
def test_ome_xml_with_a_doctype(tmp_path, entity):
    xml = f'<?xml version="1.0"?><!DOCTYPE OME [{entity}]><OME><Image><Pixels/></Image></OME>'
    tifffile.imwrite(tmp_path / "p.ome.tif", GREY8, description=xml, metadata=None)
    with pytest.raises(InputError, match=r"p\.ome\.tif: ImageDescription: found XML with a DOCTYPE"):
        tiff.read(tmp_path / "p.ome.tif")


@pytest.mark.parametrize("pixels", ["<Pixels", '<Pixels PhysicalSizeX="wide"/>'])
def test_malformed_ome_xml(tmp_path, pixels):
    xml = f"<OME><Image>{pixels}</Image></OME>"
    tifffile.imwrite(tmp_path / "p.ome.tif", GREY8, description=xml, metadata=None)
    with pytest.raises(InputError, match=r"p\.ome\.tif: file"):
        tiff.read(tmp_path / "p.ome.tif")


# --- files that are not a picture or stack ---


def test_label_stack_and_thumbnail(tmp_path):
    with tifffile.TiffWriter(tmp_path / "s.tif") as file:
        file.write(STACK16, photometric="minisblack")
        file.write(GREY8[:3, :3])
    np.testing.assert_array_equal(label_of(tmp_path / "s.tif"), STACK16)


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "missing"])
def test_bad_file(tmp_path, kind):
    path = tmp_path / "bad.tif"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:700])
    elif kind == "missing":
        path.unlink()
    else:
        path.write_text("no picture" * (kind == "text"))
    for read in (tiff.read, label_of):
        with pytest.raises(InputError, match=r"bad\.tif: file") as error:
            read(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{"imagej": True}, {"metadata": None}], ids=["imagej", "pages"])
def test_stack_cut_within_its_pages_is_not_read_in_part(tmp_path, options):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, np.tile(STACK8, (1, 9, 9)), photometric="minisblack", **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"s\.tif: file"):
        tiff.read(path)


def test_colour_label_is_refused(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "l.tif")
    with pytest.raises(InputError, match="3 channels"):
        label_of(tmp_path / "l.tif")


@pytest.mark.parametrize(("choice", "field"), [({"frame": 0}, "frame"), ({"series": "1.2"}, "series")])
def test_a_tiff_offers_no_choice(tmp_path, choice, field):
    tifffile.imwrite(tmp_path / "p.tif", GREY8)
    with pytest.raises(InputError, match=rf"p\.tif: {field}: found"):
        tiff.read(tmp_path / "p.tif", **choice)


@pytest.mark.parametrize(
    ("array", "options", "match"),
    [
        (np.stack([STACK8, STACK8]), {}, "axes"),
        (STACK8[:2], {"imagej": True, "metadata": {"axes": "CYX"}}, "axes"),
        (np.stack([STACK8, STACK8], 1), {"imagej": True, "metadata": {"axes": "ZCYX"}}, "axes"),
        (GREY8.astype(np.complex64), {}, "label: found dtype"),
        (np.dstack([RGB, GREY8]), {"photometric": "separated"}, "colours"),
    ],
    ids=["QQYX", "CYX", "ZCYX", "complex", "cmyk"],
)
def test_tiff_of_another_kind(tmp_path, array, options, match):
    tifffile.imwrite(tmp_path / "p.tif", array, **{"photometric": "minisblack"} | options)
    with pytest.raises(InputError, match=match):
        tiff.read(tmp_path / "p.tif", labels="label" in match)


@pytest.mark.parametrize("read", [tiff.read, label_of])
def test_bomb(tmp_path, read):
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, GREY8, compression="zlib", rowsperstrip=6, metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[name].overwrite(60_000)
    with pytest.raises(InputError, match=r"bomb\.tif: size: found 1 x 60000 x 60000 .*; allowed: at most"):
        read(path)


# --- masks ---


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("shape", "spacing"), [((4, 7, 9), None), ((4, 7, 9), (3.0, 0.5, 0.25)), ((7, 9), None), ((7, 9), (0.5, 0.25))]
)
def test_mask(tmp_path, dtype, shape, spacing):
    labels = RNG.integers(0, 200, shape).astype(dtype)
    kind = "volume" if len(shape) == 3 else "picture"
    image = Source(path="a", format="tiff", array=labels, kind=kind, spacing=spacing)
    assert tiff.mask_problem(image) is None and tiff.mask_ending(image) == ".tif"
    tiff.write_mask(tmp_path / "a.tif", labels, {}, image)
    found = tiff.read(tmp_path / "a.tif", labels=True)
    assert found.array.dtype == dtype and found.kind == kind and [p.name for p in tmp_path.iterdir()] == ["a.tif"]
    assert found.spacing == (spacing if spacing is None or len(spacing) == 3 else (1.0, *spacing))
    np.testing.assert_array_equal(found.array, labels if kind == "volume" else labels[None])
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_imagej


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 1), (5, 1, 3)])
def test_mask_of_an_image_on_a_grid_is_on_the_axes_of_the_source(tmp_path, shape):
    affine = np.array([[0, 0, -2, 7], [0.5, 0, 0, 8], [0, -3, 0, 9], [0, 0, 0, 1]])
    geometry = Geometry(affine, shape)
    stored = RNG.integers(0, 9, shape).astype(np.uint8)
    array, kind = geometry.canonical(stored), "picture" if 1 in shape else "volume"
    array, spacing = (array[0], geometry.spacing[1:]) if kind == "picture" else (array, geometry.spacing)
    image = Source(path="a", format="nifti", array=array, kind=kind, geometry=geometry, spacing=spacing)
    tiff.write_mask(tmp_path / "a.tif", array, {}, image)
    found = tiff.read(tmp_path / "a.tif", labels=True)
    np.testing.assert_array_equal(found.array.squeeze(), stored.T.squeeze())
    steps = [step for step, n in zip((0.5, 3, 2), shape, strict=True) if n > 1]
    assert found.spacing == ((1.0, *steps[::-1]) if kind == "picture" else tuple(steps[::-1]))
