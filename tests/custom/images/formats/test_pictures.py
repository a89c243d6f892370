import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from custom.errors import InputError
from custom.images.formats import format_of, pictures
from custom.images.image import Image as Source
from custom.images.reading import read_image, read_labels
from custom.inference.overlay import draw_overlay

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (6, 7), np.uint8)
GREY16 = RNG.integers(0, 65536, (6, 7), np.uint16)
RGB = RNG.integers(0, 256, (6, 7, 3), np.uint8)


def label_of(path):
    return pictures.read(path, labels=True).array


def source(**fields):
    return Source(
        **{"path": "a", "format": "pictures", "array": np.zeros((7, 9), np.uint8), "kind": "picture"} | fields
    )


@pytest.mark.parametrize(
    ("mode", "shape", "dtype"),
    [
        ("L", (1, 6, 7), np.uint8),
        ("RGB", (1, 6, 7, 3), np.uint8),
        ("RGBA", (1, 6, 7, 3), np.uint8),
        ("LA", (1, 6, 7), np.uint8),
        ("P", (1, 6, 7, 3), np.uint8),
        ("1", (1, 6, 7), np.uint8),
        ("I;16", (1, 6, 7), np.uint16),
    ],
)
def test_picture_modes(tmp_path, mode, shape, dtype):
    picture = Image.fromarray(GREY16) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    picture.save(tmp_path / "p.png")
    array = pictures.read(tmp_path / "p.png").array
    assert array.shape == shape and array.dtype == dtype
    if mode in ("RGB", "RGBA"):
        np.testing.assert_array_equal(array[0], RGB)
    if mode == "I;16":
        np.testing.assert_array_equal(array[0], GREY16)


@pytest.mark.parametrize("ending", ["png", "bmp", "webp", "PNG"])
@pytest.mark.parametrize("array", [GREY8, RGB], ids=["grey", "rgb"])
def test_formats_without_loss(tmp_path, ending, array):
    Image.fromarray(array).save(tmp_path / f"p.{ending}", **({"lossless": True} if ending == "webp" else {}))
    assert format_of(tmp_path / f"p.{ending}") is pictures
    image = read_image(tmp_path / f"p.{ending}")
    assert (image.kind, image.format, image.spacing, image.notes) == ("picture", "pictures", None, {})
    np.testing.assert_array_equal(image.array, array)


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_formats_with_loss_are_what_pillow_reads(tmp_path, ending):
    Image.fromarray(RGB).save(tmp_path / f"p.{ending}")
    expected = np.asarray(Image.open(tmp_path / f"p.{ending}"))[None]
    np.testing.assert_array_equal(pictures.read(tmp_path / f"p.{ending}").array, expected)


def test_animated_webp(tmp_path):
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[::-1])]
    frames[0].save(tmp_path / "p.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"p\.webp: frames: found an animation of 2; allowed: one picture"):
        pictures.read(tmp_path / "p.webp")


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_exif_orientation_is_applied_as_viewers_do(tmp_path, ending, orientation):
    exif, path = Image.Exif(), tmp_path / f"p.{ending}"
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(path, exif=exif)
    image = read_image(path)
    np.testing.assert_array_equal(image.array, np.asarray(ImageOps.exif_transpose(Image.open(path))))
    assert image.notes == ({"exif_orientation": orientation, "upright": True} if 1 < orientation < 9 else {})
    assert image.size == ((6, 7) if 4 < orientation < 9 else (7, 6))


def test_exif_orientation_of_labels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY8).save(tmp_path / "l.png", exif=exif)
    label = read_labels(tmp_path / "l.png")
    np.testing.assert_array_equal(label.array[0], np.rot90(GREY8, -1))
    assert label.notes["exif_orientation"] == 6


def test_broken_exif_is_passed_over(tmp_path):
    Image.fromarray(GREY8).save(tmp_path / "p.png", exif=b"Exif\0\0no TIFF header")
    np.testing.assert_array_equal(pictures.read(tmp_path / "p.png").array[0], GREY8)


def test_palette_label_keeps_indices(tmp_path):
    ids = RNG.integers(0, 4, (5, 6), np.uint8)
    picture = Image.fromarray(ids)
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "l.png")
    np.testing.assert_array_equal(label_of(tmp_path / "l.png")[0], ids)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "webp"])
@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "missing"])
def test_bad_picture(tmp_path, kind, ending):
    path = tmp_path / f"bad.{ending}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:700])
    elif kind == "missing":
        path.unlink()
    else:
        path.write_text("no picture" * (kind == "text"))
    for read in (pictures.read, label_of):
        with pytest.raises(InputError, match=rf"bad\.{ending}: file") as error:
            read(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["l.png", "l.webp"])
def test_colour_label_is_refused(tmp_path, name):
    Image.fromarray(RGB).save(tmp_path / name)
    with pytest.raises(InputError, match="3 channels"):
        label_of(tmp_path / name)


@pytest.mark.parametrize(("choice", "field"), [({"frame": 0}, "frame"), ({"series": "1.2"}, "series")])
def test_a_picture_offers_no_choice(tmp_path, choice, field):
    Image.fromarray(RGB).save(tmp_path / "p.png")
    with pytest.raises(InputError, match=rf"p\.png: {field}: found"):
        pictures.read(tmp_path / "p.png", **choice)


def test_a_folder_is_no_picture(tmp_path):
    (tmp_path / "scan.png").mkdir()
    assert not pictures.recognises(str(tmp_path / "scan.png"))


def png_that_declares(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("width", [10_000, 60_000], ids=["where Pillow warns", "where Pillow raises"])
@pytest.mark.parametrize("read", [pictures.read, label_of])
def test_png_bomb(tmp_path, width, read, recwarn):
    (tmp_path / "bomb.png").write_bytes(png_that_declares(width, 10_000))
    with pytest.raises(InputError, match=r"bomb\.png: .*pixels"):
        read(tmp_path / "bomb.png")
    assert not recwarn.list


@pytest.mark.parametrize(("side", "message"), [(10_000, "MCP_MEDSAM_MAX_PIXELS raises it"), (16_383, "pixels")])
def test_webp_bomb(tmp_path, side, message):
    path = tmp_path / "bomb.webp"
    Image.fromarray(RGB).save(path, lossless=True)
    content = bytearray(path.read_bytes())
    start = content.index(b"VP8L") + 9
    bits = int.from_bytes(content[start : start + 4], "little") >> 28 << 28 | (side - 1) << 14 | side - 1
    content[start : start + 4] = bits.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        pictures.read(path)


# --- masks ---


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mask_keeps_every_value(tmp_path, dtype):
    labels = RNG.integers(0, np.iinfo(dtype).max + 1, (7, 9)).astype(dtype)
    pictures.write_mask(tmp_path / "a.png", labels, {}, source())
    found = label_of(tmp_path / "a.png")
    assert found.dtype == dtype and [path.name for path in tmp_path.iterdir()] == ["a.png"]
    np.testing.assert_array_equal(found[0], labels)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == {np.uint8: "P", np.uint16: "I;16"}[dtype]


def test_mask_has_the_colours_of_the_overlay(tmp_path):
    labels = np.arange(10, dtype=np.uint8).reshape(1, 10).repeat(3, axis=0).repeat(3, axis=1)
    pictures.write_mask(tmp_path / "a.png", labels, {}, source())
    shown = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert not shown[labels == 0].any()
    outlines = draw_overlay(np.zeros_like(labels), labels, np.tile([0, 0, 29, 2], (9, 1)))
    np.testing.assert_array_equal(shown[0, 3::3], outlines[0, 3::3])


def test_mask_lies_on_the_pixels_of_the_source(tmp_path):
    class Turned:
        def to_zyx(self, labels):
            return labels[::-1]

    pictures.write_mask(tmp_path / "a.png", GREY8, {}, Turned())
    np.testing.assert_array_equal(label_of(tmp_path / "a.png")[0], GREY8[::-1])


def test_which_images_can_have_a_png_mask():
    assert pictures.mask_problem(source()) is None and pictures.mask_ending(source()) == ".png"
    assert pictures.mask_problem(source(kind="volume", array=np.zeros((2, 3, 4)))) == "a volume"
