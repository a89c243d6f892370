import json
import math

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Picture

from custom.errors import InputError
from custom.images.formats import dicom
from custom.images.geometry import Geometry
from custom.images.image import Image
from custom.images.reading import image_of_array, read_image
from custom.inference.box_input import BoxInput

#: i runs to the left, j to posterior, k to superior, as in most CT.
AFFINE = np.array([[-0.5, 0, 0, 20], [0, -0.8, 0, 30], [0, 0, 2.5, -40], [0, 0, 0, 1.0]])
#: Slices along i, tilted by 10 degrees; j runs down, k to the left.
TILTED = np.array(
    [[0, 0, -1, 0], [math.cos(0.17), math.sin(0.17), 0, 0], [math.sin(0.17), -math.cos(0.17), 0, 0], [0, 0, 0, 1.0]]
) @ np.diag([4.0, 0.7, 0.9, 1.0])
SHAPES = {"axial": (12, 10, 8), "tilted": (8, 12, 10), "flat": (12, 10, 1)}
AFFINES = {"axial": AFFINE, "tilted": TILTED, "flat": AFFINE}


def make_image(kind="axial"):
    """An image on a grid, or a picture or stack without one."""
    if kind == "picture":
        return image_of_array(np.zeros((8, 10), np.uint8))
    if kind == "stack":
        return image_of_array(np.zeros((6, 8, 10), np.uint8))
    geometry = Geometry(AFFINES[kind], SHAPES[kind])
    array = geometry.canonical(np.zeros(SHAPES[kind], np.uint8))
    flat = kind == "flat"
    return Image(
        path=f"{kind}.nii",
        format="nifti",
        array=array[0] if flat else array,
        kind="picture" if flat else "volume",
        geometry=geometry,
        spacing=geometry.spacing,
        ijk=True,
    )


def resolve(value, image=None, **options):
    boxes = BoxInput.parse(value, **options).resolve(image or make_image())
    return np.asarray(boxes.values).tolist(), boxes.slices, boxes.names


# --- numbers ---


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2, 8, 6], [[1, 2, 8, 6]]),
        ((1, 2, 8.5, 6), [[1, 2, 8.5, 6]]),
        ([[1, 2, 8, 6], (3, 0, 9, 7)], [[1, 2, 8, 6], [3, 0, 9, 7]]),
        (np.array([[1, 2, 0, 8, 6, 3]]), [[1, 2, 0, 8, 6, 3]]),
        ("1 2 8 6", [[1, 2, 8, 6]]),
        (" 1,2, 8 ,6;", [[1, 2, 8, 6]]),
        ("1 2 8 6; 3,0,9,7", [[1, 2, 8, 6], [3, 0, 9, 7]]),
        ("[1, 2, 8, 6]", [[1, 2, 8, 6]]),
        ("[[1,2,0,8,6,3],[1,2,0,8,6,4]]", [[1, 2, 0, 8, 6, 3], [1, 2, 0, 8, 6, 4]]),
    ],
)
def test_numbers(value, expected):
    given = BoxInput.parse(value)
    assert resolve(value) == (expected, None, None)
    assert given.count == len(expected) and given.files == ()
    assert json.loads(json.dumps(given.description))["numbers"] == expected


@pytest.mark.parametrize(
    ("value", "found", "allowed"),
    [
        ([1, 2, 8, 6, 3, 0, 9, 7], "boxes[0]: found 8 numbers in one box", "several with semicolons or brackets"),
        ("1 2 0 8 6 3 1 2 0 8 6 3", "boxes[0]: found 12 numbers in one box", "several with semicolons or brackets"),
        ([[1, 2, 8], [1, 2, 8, 6]], "boxes[0]: found 3 numbers", ""),
        ("1 2 8 6; 1 2 0 8 6 3", "boxes[1]: found 6 numbers", "4 as in the first box"),
        ([1, 2, 8, math.nan], "boxes[0]: found [1, 2, 8, nan]", "finite numbers"),
        ("1 2 inf 6", "boxes[0]: found", "finite numbers"),
        ([1, 2, 10**400, 6], "boxes[0]: found", "finite numbers"),
        ("3 2 1 6", "boxes[0]: found [3.0, 2.0, 1.0, 6.0]", "x_min <= x_max"),
        ([1, 2, 5, 8, 6, 3], "boxes[0]: found [1, 2, 5, 8, 6, 3]", "z_min <= z_max"),
        ([1, 2, True, 6], "boxes[0]: found 1", ""),
        (["1", "2", "8", "6"], "boxes[0]: found '1'", ""),
        ([], "boxes: found []", "x_min y_min x_max y_max"),
        ("", "boxes: found []", ""),
        ("[1, 2", "boxes: found invalid JSON", ""),
        (7, "boxes: found 7", ""),
        (None, "boxes: found None", ""),
        ({"x": 1}, "boxes: found {'x': 1}", ""),
        ("liver", "boxes: found 'liver'", "mask file"),
        ("none.mrk.json", "boxes: found none.mrk.json: no such file", ""),
        ("in/none", "boxes: found in/none: no such file", ""),
        ("none.png", "boxes: found none.png: no such file", ""),
    ],
)
def test_malformed(value, found, allowed):
    with pytest.raises(InputError) as error:
        BoxInput.parse(value, source="here")
    assert str(error.value).startswith(f"here: {found}") and allowed in str(error.value).split("; allowed: ")[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 3}, "margin: found 3; .* only the boxes of a mask file can have a margin"),
        ({"margin": -1}, "margin: found -1"),
        ({"margin": 1.5}, "margin: found 1.5"),
        ({"slices": [1, 2, 3]}, r"slice: found \[1, 2, 3\]; allowed: .* or 2, one for each box"),
        ({"slices": -1}, "slice: found -1"),
        ({"slices": 1.5}, "slice: found 1.5"),
    ],
)
def test_options_that_do_not_go_with_numbers(options, message):
    with pytest.raises(InputError, match=message):
        BoxInput.parse([[1, 2, 8, 6], [3, 0, 9, 7]], **options)
    with pytest.raises(InputError, match="slice: .* no slice for boxes of 6 numbers"):
        BoxInput.parse([1, 2, 0, 8, 6, 3], slices=1)


def test_slices():
    two = [[1, 2, 8, 6], [3, 0, 9, 7]]
    assert resolve(two, slices=4) == (two, (4, 4), None)
    assert resolve(two, slices=[4, 0]) == (two, (4, 0), None)


# --- mm ---


def test_world_of_a_grid():
    # i 2 to 6, j 1 to 4, k 3 to 5, slightly off the voxels
    millimetres = [19.2, 29.1, -32.4, 16.9, 26.9, -27.6]
    assert resolve(millimetres, world=True) == ([[2, 1, 3, 6, 4, 5]], None, None)


def test_world_ends_at_the_border():
    """The faces of the border's voxels are half a voxel outside; further out a box stays outside, for its check."""
    faces = [20.25, 30.4, -41.25, 14.25, 22.4, -21.25]
    assert resolve(faces, world=True)[0] == [[0, 0, 0, 11, 9, 7]]
    faces[2] -= 1
    assert resolve(faces, world=True)[0] == [[0, 0, -1, 11, 9, 7]]


def test_world_of_a_single_slice():
    assert resolve([19, 29.2, -41, 17, 26.8, -39], make_image("flat"), world=True)[0] == [[2, 1, 6, 4]]
    with pytest.raises(InputError, match=r"boxes\[0\]: .* meets the one slice"):
        resolve([19, 29.2, -35, 17, 26.8, -33], make_image("flat"), world=True)


def test_world_without_a_grid():
    stack = make_image("stack")
    with pytest.raises(InputError, match="spacing"):
        resolve([1, 2, 0, 8, 6, 3], stack, world=True)
    object.__setattr__(stack, "spacing", (2.0, 0.5, 0.25))
    assert resolve([0.5, 1, 2, 1.5, 2, 6], stack, world=True)[0] == [[2, 2, 1, 6, 4, 3]]
    assert resolve([0.5, 1, 1.5, 2], stack, world=True, slices=3) == ([[2, 2, 6, 4]], (3,), None)
    with pytest.raises(InputError, match="boxes: found 4 numbers in mm; allowed: 6"):
        resolve([0.5, 1, 1.5, 2], stack, world=True)
    with pytest.raises(InputError, match="boxes: found 4 numbers in mm; allowed: 6"):
        resolve([0.5, 1, 1.5, 2], make_image(), world=True)


# --- 3D Slicer ---


def save_markups(folder, *markups, **others):
    path = folder / "boxes.mrk.json"
    path.write_text(json.dumps({"@schema": "markups-schema-v1.0.3.json#", "markups": list(markups), **others}))
    return str(path)


def to_mm(voxel, affine=AFFINE, system="LPS"):
    """The position of a voxel in a coordinate system."""
    signs = (-1, -1, 1) if system in ("LPS", 1, "1") else (1, 1, 1)
    return ((affine @ [*voxel, 1])[:3] * signs).tolist()


def make_roi(first, last, *, system="LPS", **others):
    """An ROI along the outer faces of voxels of AFFINE, as 3D Slicer snaps it."""
    place, signs = (np.array(first) + last) / 2, np.array([-1, -1, 1])
    size = (np.array(last) - first + 1) * [0.5, 0.8, 2.5]
    axes = np.diag(signs if system == "LPS" else [1, 1, 1])
    return {
        "type": "ROI",
        "roiType": "Box",
        "coordinateSystem": system,
        "coordinateUnits": "mm",
        "center": to_mm(place, system=system),
        "orientation": axes.ravel().tolist(),
        "size": size.tolist(),
        **others,
    }


def make_line(first, last, *, system="LPS", **others):
    ends = [{"label": f"L-{n}", "position": to_mm(end, system=system)} for n, end in enumerate((first, last), 1)]
    return {"type": "Line", "coordinateSystem": system, "controlPoints": ends, **others}


@pytest.mark.parametrize("system", ["LPS", "RAS", 0, 1, "0", "1"])
def test_roi(tmp_path, system):
    path = save_markups(tmp_path, make_roi((2, 1, 3), (6, 4, 5), system=system, name="tumor"))
    given = BoxInput.parse(path)
    assert given.count == 1 and given.files == (path,) and path not in json.dumps(given.description)
    assert resolve(path) == ([[2, 1, 3, 6, 4, 5]], None, ("tumor",))


def test_several_rois(tmp_path):
    """An ROI beyond the image is cut; one thinner than a slice takes the nearest; without a name it has a number."""
    cut, thin = make_roi((-5, 1, 3), (6, 40, 5)), make_roi((2, 1, 3), (6, 4, 3))
    thin["size"][2], thin["controlPoints"] = 0.5, [{"label": "liver"}]
    thin["center"][2] += 0.4 * 2.5
    assert resolve(save_markups(tmp_path, cut, thin)) == (
        [[0, 1, 3, 6, 9, 5], [2, 1, 3, 6, 4, 3]],
        None,
        ("box 1", "liver"),
    )


def test_oblique_roi(tmp_path):
    """Every voxel with its centre inside is in the box, and each face of the hull touches the ROI."""
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    roi = make_roi((4, 3, 2), (7, 6, 4), orientation=turn.ravel().tolist())
    roi["size"] = [2.6, 1.6, 6.0]
    i, j, k = np.indices((12, 10, 8))
    places = np.stack([i, j, k, np.ones_like(i)], axis=-1) @ AFFINE.T
    offsets = (places[..., :3] * [-1, -1, 1] - roi["center"]) @ turn
    inside = np.argwhere((np.abs(offsets) <= np.array(roi["size"]) / 2).all(axis=-1))
    (box,) = resolve(save_markups(tmp_path, roi))[0]
    assert (inside.min(axis=0) >= box[:3]).all() and (inside.max(axis=0) <= box[3:]).all()
    width, height = 0.8 * 2.6 + 0.6 * 1.6, 0.6 * 2.6 + 0.8 * 1.6  # mm of the hull
    assert abs(box[3] - box[0] + 1 - width / 0.5) <= 1 and abs(box[4] - box[1] + 1 - height / 0.8) <= 1


def test_roi_in_a_turned_grid(tmp_path):
    corners = np.array([TILTED @ [*voxel, 1] for voxel in ((1.6, 2.6, 3.6), (4.4, 6.4, 7.4))])[:, :3]
    turn = TILTED[:3, :3] / np.linalg.norm(TILTED[:3, :3], axis=0)
    size = np.abs((corners[1] - corners[0]) @ turn).tolist()
    center = corners.mean(axis=0).tolist()
    roi = {"type": "ROI", "coordinateSystem": "RAS", "center": center, "size": size}
    path = save_markups(tmp_path, roi | {"orientation": turn.ravel().tolist()})
    assert resolve(path, make_image("tilted"))[0] == [[2, 3, 4, 4, 6, 7]]


def test_lines(tmp_path):
    within = make_line((6.2, 1.1, 2.45), (2, 3.8, 2.55), name="a"), make_line((1, 1, 0), (3, 4, 0))
    assert resolve(save_markups(tmp_path, *within)) == ([[2, 1, 6, 4], [1, 1, 3, 4]], (2, 0), ("a", "L-1"))
    across = make_line((6, 1, 5), (2, 4, 3))
    assert resolve(save_markups(tmp_path, across)) == ([[2, 1, 3, 6, 4, 5]], None, ("L-1",))
    both = within[0], make_roi((2, 1, 3), (6, 4, 5))
    assert resolve(save_markups(tmp_path, *both))[0] == [[2, 1, 2, 6, 4, 2], [2, 1, 3, 6, 4, 5]]


def test_markups_in_pictures(tmp_path):
    flat = save_markups(tmp_path, make_roi((2, 1, 0), (6, 4, 0)))
    assert resolve(flat, make_image("flat"))[:2] == ([[2, 1, 6, 4]], None)
    points = [{"position": [7, 6, 0]}, {"position": [2.2, 1, 0]}]  # 3D Slicer gives a picture pixels of 1 mm
    line = save_markups(tmp_path, {"type": "Line", "controlPoints": points})
    assert resolve(line, make_image("picture")) == ([[2, 1, 7, 6]], None, None)


def test_places_are_those_of_itk(tmp_path):
    """3D Slicer reads images by ITK, whose positions are left-posterior-superior."""
    sitk = pytest.importorskip("SimpleITK")
    nib.save(nib.Nifti1Image(np.zeros(SHAPES["tilted"], np.int16), TILTED), tmp_path / "v.nii")
    Picture.fromarray(np.zeros((8, 10), np.uint8)).save(tmp_path / "p.png")
    for name, ends in (("v.nii", [(1, 2, 3), (5, 9, 7)]), ("p.png", [(1, 2), (8, 6)])):
        read = sitk.ReadImage(str(tmp_path / name))
        points = [{"position": [*read.TransformIndexToPhysicalPoint(end), 0.0][:3]} for end in ends]
        path = save_markups(tmp_path, {"type": "Line", "coordinateSystem": "LPS", "controlPoints": points})
        assert resolve(path, read_image(tmp_path / name))[0] == [[*ends[0], *ends[1]]]


def test_markups_beside_the_image(tmp_path):
    path = save_markups(tmp_path, make_roi((2, 1, 3), (6, 4, 5)), make_roi((2, 1, 9), (6, 4, 12)))
    with pytest.raises(InputError, match=r"markups\[1\]: found voxels \[2, 1, 9\] to \[6, 4, 12\] of axial.nii"):
        resolve(path)
    with pytest.raises(InputError, match=r"markups\[0\]: found voxels"):
        resolve(save_markups(tmp_path, make_roi((2, 1, 3), (6, 4, 5))), make_image("flat"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "Fiducial"}, "type: found 'Fiducial'; allowed: ROI, Line"),
        ({"type": ["ROI"]}, "type: found"),
        ({"coordinateSystem": "IJK"}, "coordinateSystem: found 'IJK'"),
        ({"coordinateUnits": "um"}, "coordinateUnits: found 'um'"),
        ({"coordinateUnits": ["um", "UCUM", "micrometer"]}, "coordinateUnits: found"),
        ({"size": [1, 0, 2]}, r"size: found \[1.0, 0.0, 2.0\]"),
        ({"size": [1, 2]}, "size: found .*; allowed: 3 numbers"),
        ({"center": None}, "center: found None"),
        ({"center": [1, 2, math.nan]}, "center: found"),
        ({"center": [1, 2, True]}, "center: found"),
        ({"orientation": [1] * 8}, "orientation: found .*; allowed: 9 numbers"),
        ({"type": "Line"}, "controlPoints: found 0 points"),
        ({"type": "Line", "controlPoints": [{}, {}]}, "controlPoints: position: found None"),
        ({"controlPoints": 7}, "controlPoints: found 7"),
    ],
)
def test_malformed_markups(tmp_path, change, message):
    path = save_markups(tmp_path, make_roi((2, 1, 3), (6, 4, 5)) | change)
    with pytest.raises(InputError, match=rf"boxes.mrk.json: markups\[0\]: {message}"):
        BoxInput.parse(path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"markups": []}', '{"markups": {"a": 1}}', '{"markups": [7]}'])
def test_no_markups(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match="a.json: (file: found invalid JSON|markups)"):
        BoxInput.parse(path)
    with pytest.raises(InputError, match="only the boxes of a mask file"):
        BoxInput.parse(path, margin=1)
    with pytest.raises(InputError, match="slice: .* the file places its boxes itself"):
        BoxInput.parse(path, slices=1)


# --- masks ---


def save_mask(path, stored, affine=AFFINE):
    nib.save(nib.Nifti1Image(stored.astype(np.int16), affine), path)
    return path


def two_labels(shape):
    """Values 2 and 9, whose boxes along the stored axes are [1, 2, 3] to [4, 5, 6] and [0, 0, 0] to [2, 1, 0]."""
    stored = np.zeros(shape, np.int16)
    stored[0:3, 0:2, 0:1] = 9
    stored[1:5, 2, 3] = stored[1, 2:6, 4] = stored[2, 3, 3:7] = 2
    return stored, [[1, 2, 3, 4, 5, 6], [0, 0, 0, 2, 1, 0]]


@pytest.mark.parametrize("kind", ["axial", "tilted"])
def test_mask_of_a_volume(tmp_path, kind):
    stored, expected = two_labels(SHAPES[kind])
    path = save_mask(tmp_path / "m.nii", stored, AFFINES[kind])
    assert resolve(path, make_image(kind)) == (expected, None, None)
    given = BoxInput.parse(str(path))
    assert given.count is None and given.files == (str(path),) and str(path) not in json.dumps(given.description)


def test_mask_with_other_axes(tmp_path):
    """Stored as k, i reversed, j: the same place."""
    stored, expected = two_labels(SHAPES["axial"])
    turned = stored.transpose(2, 0, 1)[:, ::-1]
    affine = AFFINE @ np.array([[0, -1, 0, 11], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    assert resolve(save_mask(tmp_path / "m.nii", turned, affine))[0] == expected


@pytest.mark.parametrize(
    ("kind", "grown"),
    [
        ("axial", [[0, 0, 3, 7, 8, 6], [0, 0, 0, 5, 4, 0]]),  # not along k
        ("tilted", [[1, 0, 0, 4, 8, 9], [0, 0, 0, 2, 4, 3]]),  # not along i
    ],
)
def test_margin_grows_in_the_plane(tmp_path, kind, grown):
    path = save_mask(tmp_path / "m.nii", two_labels(SHAPES[kind])[0], AFFINES[kind])
    assert resolve(path, make_image(kind), margin=3)[0] == grown


def test_masks_without_a_grid(tmp_path):
    """A picture's mask may be a picture, or lie on the grid on which ITK places it."""
    label = np.zeros((8, 10), np.uint8)
    label[2:5, 3:9] = 3
    Picture.fromarray(label).save(tmp_path / "m.png")
    save_mask(tmp_path / "m.nii", label.T[:, :, None], np.diag([-1, -1, 1, 1]))
    for name in ("m.png", "m.nii"):
        assert resolve(tmp_path / name, make_image("picture"))[0] == [[3, 2, 8, 4]]
        assert resolve(str(tmp_path / name), make_image("picture"), margin=3)[0] == [[0, 0, 9, 7]]


def test_mask_of_a_single_slice(tmp_path):
    stored = np.zeros((12, 10, 1))
    stored[3:9, 2:5] = 1
    assert resolve(save_mask(tmp_path / "m.nii", stored), make_image("flat"))[0] == [[3, 2, 8, 4]]
    Picture.fromarray(stored[:, :, 0].T.astype(np.uint8)).save(tmp_path / "m.png")
    assert resolve(tmp_path / "m.png", make_image("flat"), margin=1)[0] == [[2, 1, 9, 5]]


def test_mask_of_a_series(tmp_path, write_series):
    """A SEG is placed by its references, and names its objects."""
    image = read_image(write_series(tmp_path / "ct", np.zeros((5, 16, 20))))
    labels = np.zeros(image.array.shape, np.uint8)
    labels[1:3, 4:9, 5:15], labels[3, 2:4, 2:6] = 1, 3
    dicom.write_mask(tmp_path / "m.dcm", labels, {1: "liver", 2: "spleen", 3: "tumor"}, image)
    expected = [[5, 4, 1, 14, 8, 2], [2, 2, 3, 5, 3, 3]]
    assert resolve(tmp_path / "m.dcm", image) == (expected, None, ("liver", "tumor"))
    with pytest.raises(InputError, match="m.dcm: image: found axial.nii; allowed: the DICOM series"):
        resolve(tmp_path / "m.dcm")


def test_large_values(tmp_path):
    stored = np.zeros(SHAPES["axial"], np.int32)
    stored[1:3, 1:3, 1], stored[4:6, 4:6, 2] = 2_000_000_000, 100_000
    nib.save(nib.Nifti1Image(stored, AFFINE), tmp_path / "m.nii")
    assert resolve(tmp_path / "m.nii")[0] == [[4, 4, 2, 5, 5, 2], [1, 1, 1, 2, 2, 1]]


def test_masks_that_cannot_be_used(tmp_path):
    empty = save_mask(tmp_path / "m.nii", np.zeros(SHAPES["axial"]))
    with pytest.raises(InputError, match="m.nii: boxes: found an empty mask"):
        resolve(empty)
    with pytest.raises(InputError, match="m.nii: affine"):
        resolve(save_mask(empty, two_labels(SHAPES["axial"])[0], AFFINE @ np.diag([1, 1, 1.5, 1])))
    with pytest.raises(InputError, match="m.nii: shape: found 12 x 10 x 8; allowed: the image's 10 x 8"):
        resolve(save_mask(empty, two_labels(SHAPES["axial"])[0]), make_image("picture"))
    with pytest.raises(InputError, match="world: .* a mask has its own grid"):
        BoxInput.parse(empty, world=True)
    (tmp_path / "notes.txt").write_text("1 2 8 6")
    with pytest.raises(InputError, match="here: boxes: found .*notes.txt; allowed: 3D Slicer's .mrk.json, or a mask"):
        BoxInput.parse(tmp_path / "notes.txt", source="here")


def test_paths_of_a_list_start_in_its_folder(tmp_path):
    save_mask(tmp_path / "m.nii", two_labels(SHAPES["axial"])[0])
    assert BoxInput.parse("m.nii", folder=tmp_path).files == (str(tmp_path / "m.nii"),)
    assert BoxInput.parse(str(tmp_path / "m.nii"), folder="elsewhere").files == (str(tmp_path / "m.nii"),)
