import json
import pickle

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from skimage.draw import disk, polygon2mask
from skimage.morphology import dilation, erosion

from custom.errors import InputError
from data_prep.readers.coco import CocoReader

H, W = 24, 40


def annotation(number, segmentation, *, image=1, category=3, **fields):
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation} | fields


def box(x, y, width, height):
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def inside(x, y, width, height):
    plane = np.zeros((H, W), bool)
    plane[y : y + height, x : x + width] = True
    return plane


def run_lengths(mask, packed):
    if packed:
        return {"size": [H, W], "counts": coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()}
    column = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(column)) + 1
    runs = np.diff([0, *edges, column.size]).tolist()
    return {"size": [H, W], "counts": [0, *runs] if column[0] else runs}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "Cells"


@pytest.fixture
def write(root):
    """Return a function that writes an annotation file and its pictures."""

    def save(*annotations, images=None, file="labels.json", folder="", categories=None, raw=None, **top):
        target = root / file
        target.parent.mkdir(parents=True, exist_ok=True)
        images = [{"id": 1, "file_name": "a.png", "height": H, "width": W}] if images is None else images
        for image in images:
            if isinstance(image, dict) and isinstance(image.get("file_name"), str):
                path = root / folder / image["file_name"]
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((H, W), 50, np.uint8)).save(path)
        categories = categories or [{"id": 3, "name": "cell"}, {"id": 5, "name": "debris"}]
        index = {"images": images, "annotations": list(annotations), "categories": categories} | top
        target.write_text(raw or json.dumps(index))

    return save


def load(root, **options):
    reader = pickle.loads(pickle.dumps(CocoReader(root, modality="microscopy", **options)))
    return [reader.load(source) for source in reader.sources() if source.error is None]


def problem(root):
    """Return the error of the only picture, from the list or from loading."""
    reader = CocoReader(root, modality="US")
    (source,) = reader.sources()
    if source.error is not None:
        return source.error
    with pytest.raises(InputError) as error:
        reader.load(source)
    return error.value


def test_annotations_are_objects(root, write):
    write(annotation(1, box(2, 3, 6, 4)), annotation(2, box(20, 10, 3, 5), category=5), annotation(3, box(30, 2, 4, 4)))
    reader = CocoReader(root, modality="microscopy")
    (source,) = reader.sources()
    assert source.name == "Microscopy_Cells_a" and source.files == (str(root / "a.png"),)
    assert json.loads(json.dumps(source.entry)) == source.entry and len(source.entry["objects"]) == 3
    case = reader.load(source)
    wanted = inside(2, 3, 6, 4) + 2 * inside(20, 10, 3, 5) + 3 * inside(30, 2, 4, 4)
    np.testing.assert_array_equal(case.label[0], wanted)
    assert case.names == {1: "cell", 2: "debris", 3: "cell"} and case.instance and case.label.flags.c_contiguous
    assert (case.modality, case.dataset, case.split, case.image.kind, case.image.spacing) == (
        "Microscopy",
        "Cells",
        None,
        "picture",
        None,
    )
    assert case.image.array.shape == (1, H, W) and case.image.path == str(root / "a.png")


@pytest.mark.parametrize("seed", range(5))
def test_polygons_agree_with_skimage_up_to_the_outline(root, write, seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radii = rng.uniform(4, 11, 9)
    x, y = 20 + radii * np.cos(angles) * 1.5, 12 + radii * np.sin(angles)
    points = np.stack([x, y], 1).ravel().tolist()
    write(annotation(1, [points]))
    (case,) = load(root)
    np.testing.assert_array_equal(case.label[0], coco_mask.decode(coco_mask.frPyObjects([points], H, W))[..., 0])
    wanted = polygon2mask((H, W), np.stack([y - 0.5, x - 0.5], 1))  # COCO counts from the corner of a pixel
    square = np.ones((3, 3))
    found = case.label[0] > 0
    assert not (erosion(wanted, square) & ~found).any() and not (found & ~dilation(wanted, square)).any()
    assert (found != wanted).sum() <= 0.1 * wanted.sum()


def test_several_polygons_of_one_object_and_points_outside(root, write):
    write(annotation(1, [*box(1, 1, 5, 5), *box(4, 4, 6, 6), *box(35, -4, 30, 8)]))
    (case,) = load(root)
    np.testing.assert_array_equal(case.label[0], inside(1, 1, 5, 5) | inside(4, 4, 6, 6) | inside(35, 0, 5, 4))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_run_lengths(root, write, packed, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((H, W)) < (0.5, 0.05, 0.95, 0.5)[seed]
    if seed == 3:  # long runs, so that packed numbers have several characters
        mask[:] = False
        mask[disk((10, 20), 9, shape=(H, W))] = True
        mask[0, 0] = True
    write(annotation(1, run_lengths(mask, packed)))
    (case,) = load(root)
    np.testing.assert_array_equal(case.label[0], mask)


def test_the_smaller_object_lies_on_top(root, write):
    large, small = inside(0, 0, 30, 20), inside(5, 5, 4, 4)
    write(annotation(1, run_lengths(small, True)), annotation(2, run_lengths(large, False)))
    (case,) = load(root)
    np.testing.assert_array_equal(case.label[0], np.where(small, 1, 2 * large))


def test_crowds_and_empty_pictures_are_left_out(root, write):
    images = [{"id": k, "file_name": f"{k}.png", "height": H, "width": W} for k in (1, 2, "x")]
    crowd = annotation(7, run_lengths(inside(0, 0, 9, 9), False), iscrowd=1)
    write(annotation(1, box(2, 3, 6, 4)), crowd, crowd | {"image_id": 2}, images=images)
    (case,) = load(root)
    assert case.name == "Microscopy_Cells_1" and list(np.unique(case.label)) == [0, 1]


@pytest.mark.parametrize("folder", ["", "images", "train2017", "images/train2017", "annotations"])
def test_places_of_pictures(root, write, folder):
    image = {"id": 1, "file_name": "deep/a.b.png", "height": H, "width": W}
    write(annotation(1, box(2, 3, 6, 4)), images=[image], file="annotations/instances_train2017.json", folder=folder)
    (case,) = load(root)
    assert case.name == "Microscopy_Cells_deep_a.b" and case.split is None
    assert case.image.path == str(root / folder / "deep" / "a.b.png")


def test_files_give_the_split(root, write):
    for part in ("train2017", "val2017"):
        write(annotation(1, box(2, 3, 6, 4)), file=f"annotations/instances_{part}.json", folder=part)
    write(file="annotations/image_info_test2017.json")
    cases = load(root)
    assert {case.name: case.split for case in cases} == {
        "Microscopy_Cells_train_a": "train",
        "Microscopy_Cells_val_a": "val",
    }
    assert [case.image.path for case in cases] == [str(root / part / "a.png") for part in ("train2017", "val2017")]
    (case,) = load(root, annotations="annotations/instances_val2017.json")
    assert case.split is None and case.name == "Microscopy_Cells_a"


def test_which_annotation_file(root, write, tmp_path):
    root.mkdir()
    with pytest.raises(InputError, match="annotations: found no .json file"):
        CocoReader(root, modality="US")
    write(annotation(1, box(2, 3, 6, 4)), file="trainval.json")
    write(annotation(1, box(2, 3, 6, 4)), file="annotations/b_train.json")
    with pytest.raises(InputError, match="annotations: found trainval.json, annotations/b_train.json; allowed: one"):
        CocoReader(root, modality="US")
    assert len(load(root, annotations=root / "trainval.json")) == 1
    with pytest.raises(InputError, match="annotations: found no file c.json"):
        CocoReader(root, modality="US", annotations="c.json")
    with pytest.raises(InputError, match="src: found no such folder"):
        CocoReader(tmp_path / "none", modality="US")
    with pytest.raises(InputError, match="modality: found 'XY'"):
        CocoReader(root, modality="XY", annotations="trainval.json")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"raw": "{"}, "file: found invalid JSON"),
        ({"raw": "[" * 100_000}, "file: found invalid JSON"),
        ({"raw": "[]"}, "images: found no list"),
        ({"annotations": {}}, "annotations: found no list"),
        ({"categories": [{"id": 1}]}, r"categories\[0\]: found"),
        ({"images": []}, "no picture with an object"),
    ],
)
def test_errors_of_the_file(root, write, fields, text):
    write(**fields)
    with pytest.raises(InputError, match=text):
        CocoReader(root, modality="US").sources()


PACKED = coco_mask.encode(np.asfortranarray(inside(2, 3, 20, 9), np.uint8))["counts"].decode()


@pytest.mark.parametrize(
    ("segmentation", "text"),
    [
        (None, "segmentation: found None"),
        ([], r"segmentation: found \[\]"),
        ("x", "segmentation: found 'x'"),
        ([[1, 1, 5, 5]], "a polygon of 2 points; allowed: at least 3 points"),
        ([*box(1, 1, 3, 3), []], "a polygon of 0 points"),
        ([[1, 1, 5, 5, 8, 8, 9]], r"allowed: polygons \[x, y"),
        ([[1, 1, 5, 5, 8, float("nan")]], r"allowed: polygons \[x, y"),
        ([[1, 1, 5, 5, 8, "a"]], r"allowed: polygons \[x, y"),
        ([5, 5, 5, 5, 5, 5], r"allowed: polygons \[x, y"),
        ([[1, 1, 5, 5, 8, 1e9]], "the coordinate 1e"),
        (
            {"size": [W, H], "counts": [H * W]},
            r"segmentation.size: found \[40, 24\]; allowed: the picture's \[24, 40\]",
        ),
        ({"counts": [H * W]}, "segmentation.size: found None"),
        ({"size": [H, W], "counts": [3, 4]}, "runs of 7 pixels; allowed: 960 pixels"),
        ({"size": [H, W], "counts": [H * W, 1]}, "runs of 961 pixels"),
        ({"size": [H, W], "counts": [H * W + 1, -1]}, "counts: found"),
        ({"size": [H, W], "counts": [float(H * W)]}, "counts: found"),
        ({"size": [H, W], "counts": None}, "counts: found None"),
        ({"size": [H, W], "counts": ""}, "runs of 0 pixels"),
        ({"size": [H, W], "counts": PACKED[:-2]}, "runs of 516 pixels"),
        ({"size": [H, W], "counts": PACKED + "3"}, "runs of 972 pixels"),
        ({"size": [H, W], "counts": "é"}, "counts: found 'é'"),
        ({"size": [H, W], "counts": "oo"}, "cut off"),
    ],
)
def test_errors_of_one_annotation(root, write, segmentation, text):
    write(annotation(1, box(2, 3, 6, 4)), annotation(2, segmentation))
    error = problem(root)
    assert error.source == f"{root / 'labels.json'}: annotations[1]"
    with pytest.raises(InputError, match=text):
        raise error


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (
            {"height": W, "width": H},
            r"height and width: found shape \(1, 40, 24\); allowed: the image's \(1, 24, 40\)$",
        ),
        ({"height": None}, r"images\[0\] height and width: found \[None, 40\]"),
        ({"file_name": None}, r"images\[0\].file_name: found None"),
    ],
)
def test_errors_of_one_image(root, write, image, text):
    write(annotation(1, box(2, 3, 6, 4)), images=[{"id": 1, "file_name": "a.png", "height": H, "width": W} | image])
    with pytest.raises(InputError, match=text):
        raise problem(root)


def test_one_bad_image_does_not_stop_the_others(root, write):
    images = [{"id": k, "file_name": f"{k}.png", "height": H, "width": W} for k in range(1, 6)]
    extra = [images[0] | {"file_name": "1.jpg"}, {"file_name": "7.png"}, 5, images[4] | {"id": 9, "file_name": "5.jpg"}]
    good = [annotation(k, box(2, 3, 6, 4), image=k) for k in (1, 2, 3, 4, 5, 9)]
    bad = [annotation(6, box(2, 3, 6, 4), image=2, category=4), annotation(7, box(2, 3, 6, 4), image=77), "x"]
    write(*good, *bad, images=images + extra)
    (root / "3.png").unlink()
    sources = CocoReader(root, modality="US").sources()
    assert [s.name for s in sources if s.error is None] == ["US_Cells_1", "US_Cells_4", "US_Cells_5"]
    reported = [str(s.error).removeprefix(f"{root / 'labels.json'}: ") for s in sources if s.error]
    starts = [
        "annotations[6].category_id: found 4; allowed: 3, 5",
        "images[2].file_name: found '3.png'; allowed: a file in",
        "images[5].id: found 1; allowed: a unique id",
        "images[6].id: found None",
        "images[7].id: found None",
        "images[8].file_name: found 5.jpg; allowed: a unique name",
        "annotations.image_id: found 77, None (2 in total); allowed: ids of images",
    ]
    assert len(reported) == len(starts) and all(
        text.startswith(start) for text, start in zip(reported, starts, strict=True)
    )
    assert len({s.name for s in sources}) == len(sources)


def test_objects_drawn_before_the_orientation_of_exif(root, write):
    write(annotation(1, box(2, 3, 6, 4)), images=[{"id": 1, "file_name": "a.png", "height": W, "width": H}])
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.zeros((W, H), np.uint8)).save(root / "a.png", exif=exif)
    with pytest.raises(
        InputError, match=r"found shape \(1, 40, 24\); allowed: the image's \(1, 24, 40\), upright according"
    ):
        raise problem(root)


def test_stacks_are_no_coco_pictures(root, write):
    write(annotation(1, box(2, 3, 6, 4)))
    pages = [Image.fromarray(np.full((H, W), k, np.uint8)) for k in (1, 2)]
    image = {"id": 1, "file_name": "a.tif", "height": H, "width": W}
    write(annotation(1, box(2, 3, 6, 4)), images=[image])
    pages[0].save(root / "a.tif", save_all=True, append_images=pages[1:])
    assert "pages: found 2" in str(problem(root))


@pytest.mark.parametrize("place", ["../secret.png", "{root}/../secret.png", "sub/../../secret.png"])
def test_pictures_outside_of_the_folder(root, write, place):
    """An annotation file from elsewhere cannot add a private picture to a set."""
    name = place.format(root=root)
    write(annotation(1, box(2, 2, 9, 9), image=2), images=[{"id": 1, "file_name": "a.png", "height": H, "width": W}])
    index = json.loads((root / "labels.json").read_text())
    index["images"].append({"id": 2, "file_name": name, "height": H, "width": W})
    (root / "labels.json").write_text(json.dumps(index))
    Image.fromarray(np.zeros((H, W), np.uint8)).save(root.parent / "secret.png")
    (source,) = CocoReader(root, modality="US").sources()
    assert "file_name: found" in str(source.error)


def test_pictures_beside_the_folder_of_annotations(root, write):
    write(annotation(1, box(2, 2, 9, 9)), file="annotations/labels.json")
    index = json.loads((root / "annotations" / "labels.json").read_text())
    index["images"][0]["file_name"] = "../a.png"
    (root / "annotations" / "labels.json").write_text(json.dumps(index))
    reader = CocoReader(root, modality="US")
    assert reader.load(reader.sources()[0]).image.array.shape == (1, H, W)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [H, W], "counts": "o" * 10**6}, "segmentation.counts: found a number of"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "segmentation.size: found"),
        ([[0, 0, *[W, H, 0, 0] * 2 * 10**5]], "pixels along an outline"),
        ([[10**400, 0, 3, 3, 4, 4]], "segmentation: found"),
    ],
)
def test_objects_that_would_take_long(root, write, segmentation, message):
    write(annotation(1, segmentation))
    reader = CocoReader(root, modality="US")
    with pytest.raises(InputError, match=message):
        reader.load(reader.sources()[0])


def test_many_objects_as_large_as_the_picture(root, write, monkeypatch):
    write(*(annotation(n, {"size": [H, W], "counts": [0, H * W]}) for n in range(50)))
    reader = CocoReader(root, modality="US")
    (source,) = reader.sources()
    assert reader.load(source).label.min() == 50
    monkeypatch.setenv("MCP_MEDSAM_MAX_BYTES", str(40 * H * W * 8))
    with pytest.raises(InputError, match=r"labels\.json: objects: found .* bytes in memory"):
        reader.load(source)
