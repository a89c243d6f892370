import numpy as np
import pytest
from PIL import Image

from custom.errors import InputError
from custom.images.image import Image as Read
from data_prep.masks import clean_masks
from data_prep.readers.mask_pictures import mask_rules, read_masks

RED, GREEN, BLACK, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 0), (255, 255, 255)


@pytest.fixture
def save(tmp_path):
    """Return a function that writes a picture and returns its path."""

    def write(name, array, **options):
        path = tmp_path / name
        picture = array if isinstance(array, Image.Image) else Image.fromarray(np.asarray(array, np.uint8))
        picture.save(path, **options)
        return str(path)

    return write


def read(*paths, **options):
    with Image.open(paths[0]) as picture:
        shape = (1, picture.height, picture.width)
    return read_masks(paths, image(shape), mask_rules(**options))


def image(shape):
    return Read(path="a", format="array", array=np.zeros(shape, np.uint8), kind="picture")


def grid(*rows):
    return np.array(rows, np.uint8)


def blocks(*colours):
    """8x8 blocks of colours side by side, large enough for a JPEG."""
    return np.repeat(np.repeat(np.array([colours], np.uint8), 8, 0), 8, 1)


IDS = grid([0, 2, 2, 7])
RGB = np.array([[RED, BLACK, GREEN, RED]], np.uint8)


@pytest.mark.parametrize(
    ("array", "kind", "names"),
    [(IDS, "ids", {2: "label 2", 7: "label 7"}), (IDS, "instances", {"*": "object"}), (IDS, "auto", {2: "label 2"})],
)
def test_values_are_ids(save, array, kind, names):
    masks = read(save("m.png", array), kind=kind)
    np.testing.assert_array_equal(masks.label, array[None])
    assert names.items() <= masks.names.items() and masks.instance == (kind == "instances")


def test_sixteen_bit_ids_and_given_names(save):
    label = np.array([[0, 700, 3]], np.uint16)
    masks = read(save("m.png", Image.fromarray(label)), kind="instances", names={"*": "cell"})
    assert masks.label.tolist() == [[[0, 700, 3]]] and masks.names == {"*": "cell"}
    assert read(save("n.png", IDS), kind="ids", names={"7": "x", 2: "y"}).names == {7: "x", 2: "y"}


@pytest.mark.parametrize("value", [1, 5, 255])
@pytest.mark.parametrize("kind", ["auto", "binary"])
def test_one_value_is_binary(save, value, kind):
    masks = read(save("m.png", grid([0, value], [value, 0])), kind=kind)
    assert masks.label.tolist() == [[[0, 1], [1, 0]]] and masks.names == {1: "object"} and not masks.instance
    assert read(save("m.png", grid([0, value])), kind=kind, names={9: "polyp"}).names == {1: "polyp"}


def test_one_of_several_named_ids_stays_that_id(save):
    masks = read(save("m.png", grid([0, 2])), names={1: "kidney", 2: "tumor"})
    assert masks.label.tolist() == [[[0, 2]]] and masks.names[2] == "tumor"


def test_binary_takes_all_values_and_one_bit_pictures(save):
    assert read(save("m.png", IDS), kind="binary").label.tolist() == [[[0, 1, 1, 1]]]
    assert read(save("c.png", RGB), kind="binary").label.tolist() == [[[1, 0, 1, 1]]]
    bits = Image.fromarray(grid([0, 255])).convert("1")
    assert read(save("b.png", bits)).label.tolist() == [[[0, 1]]]


@pytest.mark.parametrize("kind", ["auto", "binary"])
@pytest.mark.parametrize(("mode", "quality"), [("L", 60), ("RGB", 60), ("RGB", 95)])
@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_jpeg_is_cut_at_half(save, kind, mode, quality, ending):
    rows, columns = np.mgrid[:48, :64]
    disk = (rows - 20) ** 2 + (columns - 30) ** 2 < 150
    path = save(f"m.{ending}", Image.fromarray(np.uint8(disk * 255)).convert(mode), quality=quality)
    with Image.open(path) as picture:
        assert len(np.unique(np.asarray(picture))) > 2  # the values did not survive
    masks = read(path, kind=kind)
    np.testing.assert_array_equal(masks.label[0], disk)
    assert masks.names == {1: "object"}


def test_grey_in_three_channels_is_grey(save):
    masks = read(save("m.png", np.repeat(IDS[..., None], 3, -1)))
    np.testing.assert_array_equal(masks.label, IDS[None])
    assert read(save("w.png", np.array([[WHITE, BLACK]]))).names == {1: "object"}


def test_palette_picture(save):
    picture = Image.new("P", (4, 1))
    picture.putpalette([0, 0, 0, 9, 9, 9, *RED, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, *GREEN])
    picture.putdata(IDS.ravel().tolist())
    path = save("m.png", picture)
    np.testing.assert_array_equal(read(path).label, IDS[None])
    masks = read(path, palette={"#FF0000": "a", "0, 128, 0": "b"})
    assert masks.label.tolist() == [[[0, 1, 1, 2]]] and masks.names == {1: "a", 2: "b"}


@pytest.mark.parametrize("kind", ["auto", "colours"])
def test_colours_without_a_palette_are_numbered(save, kind):
    masks = read(save("m.png", RGB), kind=kind)
    assert masks.label.tolist() == [[[2, 0, 1, 2]]] and masks.names == {1: "#008000", 2: "#ff0000"}
    assert not masks.instance


def test_one_colour(save):
    path = save("m.png", np.array([[RED, BLACK]]))
    assert read(path).names == {1: "object"} and read(path, names={1: "polyp"}).names == {1: "polyp"}
    assert read(path, kind="colours").names == {1: "#ff0000"}


@pytest.mark.parametrize("kind", ["auto", "colours"])
def test_palette(save, kind):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (6, 3), dtype=np.uint8)
    picked = rng.integers(0, 6, (30, 40))
    names = ["a", "b", "background", "a", "c", "never there"]
    palette = {",".join(map(str, c)): name for c, name in zip(colours, names, strict=True)}
    masks = read(save("m.png", colours[picked]), kind=kind, palette=palette | {"#010203": "d"})
    assert masks.names == {1: "a", 2: "b", 3: "c", 4: "never there", 5: "d"}
    np.testing.assert_array_equal(masks.label[0], np.array([1, 2, 0, 1, 3, 4])[picked])
    clean_masks(masks.label, masks.names, split=False, min_size=1, source="x")  # names that do not occur are ignored


def test_black_is_background_unless_it_has_a_name(save):
    path = save("m.png", RGB)
    palette = {"#ff0000": "a", "#008000": "background"}
    assert read(path, palette=palette).label.tolist() == [[[1, 0, 0, 1]]]
    assert read(path, palette=palette | {"#000000": "b"}).label.tolist() == [[[1, 2, 0, 1]]]
    assert read(save("g.png", grid([0, 255])), palette={"#ffffff": "a"}).label.tolist() == [[[0, 1]]]


def test_several_files_are_one_object_each(save):
    big, small = np.full((4, 6), 255), np.zeros((4, 6))
    small[1:3, 1:3] = 7
    colour = np.zeros((4, 6, 3))
    colour[3, 3:] = RED
    paths = [save("s.png", small), save("b.png", big), save("c.png", colour)]
    wanted = np.full((4, 6), 2)
    wanted[1:3, 1:3], wanted[3, 3:] = 1, 3
    for kind in ("auto", "instances", "binary"):
        masks = read(*paths, kind=kind, names={4: "cell"})
        np.testing.assert_array_equal(masks.label[0], wanted)
        assert masks.names == {"*": "cell"} and masks.instance


def test_several_jpegs(save):
    paths = [save("a.jpg", blocks(WHITE, BLACK, BLACK)), save("b.jpg", blocks(BLACK, BLACK, WHITE))]
    np.testing.assert_array_equal(read(*paths).label[0], np.repeat([[1, 0, 2]], 8, 0).repeat(8, 1))


@pytest.mark.parametrize(
    ("array", "options", "text"),
    [
        (RGB, {"palette": {"#ff0000": "a"}}, "the colour #008000; allowed: colours of the palette: #ff0000"),
        (RGB, {"kind": "ids"}, "a colour picture"),
        (RGB, {"kind": "instances"}, "a colour picture"),
        (RGB, {"names": {1: "a"}}, "2 colours beside names"),
        (np.dstack([np.arange(66), np.arange(66)[::-1], np.zeros(66)]), {}, "66 colours; allowed: at most 64"),
        (grid([0, 1]), {"kind": "ids", "shape": (1, 1, 3)}, r"shape \(1, 1, 2\); allowed: the image's \(1, 1, 3\)"),
        (RGB, {"kind": "colours", "shape": (2, 1, 4)}, "the image's"),
    ],
)
def test_errors_of_one_file(save, array, options, text):
    path, shape = save("m.png", array), options.pop("shape", (1, *np.shape(array)[:2]))
    with pytest.raises(InputError, match=text) as error:
        read_masks([path], image(shape), mask_rules(**options))
    assert error.value.source == path and error.value.field == "mask"


def test_errors_of_jpegs(save):
    path = save("m.jpg", blocks(WHITE, BLACK))
    with pytest.raises(InputError, match="a JPEG or WebP, which changes values"):
        read(path, kind="ids")
    with pytest.raises(InputError, match="one kind of object for 2 names"):
        read(path, names={1: "a", 2: "b"})


def test_errors_of_several_files(save):
    one, several = save("a.png", grid([0, 3])), save("b.png", grid([1, 3]))
    with pytest.raises(InputError, match="2 files of one image, beside kind ids"):
        read(one, one, kind="ids")
    with pytest.raises(InputError, match="several values in one of several files"):
        read(one, several)
    with pytest.raises(InputError, match="one kind of object for 2 names"):
        read(one, one, names={1: "a", 2: "b"})
    with pytest.raises(InputError, match="the image's"):
        read(one, save("c.png", grid([0, 1, 1])))
    with pytest.raises(InputError, match="no such file"):
        read(one, one + ".png")


def test_fractions_are_no_mask(save):
    path = save("m.tif", Image.fromarray(np.array([[0, 0.5]], np.float32)))
    with pytest.raises(InputError, match="fractions"):
        read(path)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kind": "labels"}, "kind: found 'labels'; allowed: auto, ids, instances, binary, colours"),
        ({"kind": "ids", "palette": {"#000001": "a"}}, "palette: found one beside kind ids"),
        ({"kind": "colours", "names": {1: "a"}}, "names of ids for masks of colours"),
        ({"palette": {"#000001": "a"}, "names": {1: "a"}}, "names of ids for masks of colours"),
        ({"kind": "binary", "names": {1: "a", 2: "b"}}, "2 names for binary masks"),
        ({"names": {}}, "names: found {}"),
        ({"names": {"x": "a"}}, "names: found 'x'"),
        ({"palette": {}}, "palette: found {}"),
        ({"palette": ["#000001"]}, "palette: found"),
        ({"palette": {"red": "a"}}, "palette: found 'red'"),
        ({"palette": {"#12345": "a"}}, "palette: found '#12345'"),
        ({"palette": {"1,2,256": "a"}}, "palette: found '1,2,256'"),
        ({"palette": {"#ff0000": "a", "255,0,0": "b"}}, "#ff0000 twice"),
    ],
)
def test_errors_of_options(options, text):
    with pytest.raises(InputError, match=text):
        mask_rules(**options)
