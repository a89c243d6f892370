"""Every format, read and its mask written: another library's reader finds object and mask at the same place.

The sources are written by those other libraries. Their object has no symmetry, and each voxel of it is compared.
"""

import itertools

import highdicom as hd
import nibabel as nib
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import SimpleITK as sitk
import tifffile
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from custom.images.formats import mask_format
from custom.images.reading import read_image

OBJECT = np.zeros((5, 6, 7), bool)  # K, J, I, as ITK gives arrays
OBJECT[1:4, 2, 1:3] = OBJECT[2, 2:5, 4] = OBJECT[3, 4, 5:] = OBJECT[1, 5, 1] = True
SCAN = np.where(OBJECT, 900, 20).astype(np.int16)
STEPS = np.array((0.7, 1.1, 1.3))
TILT = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]]) @ [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]
TO_RAS = np.diag((-1.0, -1, 1, 1))

TURNS = [
    np.eye(3)[list(order)].T * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
NAMES = ["".join("LR PA IS".split()[int(np.abs(d).argmax())][int(d.sum() > 0)] for d in turn.T) for turn in TURNS]
tilted = pytest.mark.parametrize("tilt", [np.eye(3), TILT], ids=["straight", "oblique"])
turned = pytest.mark.parametrize("turn", TURNS, ids=NAMES)


def place_of(directions):
    """Return an affine (right-anterior-superior) with those columns, scaled by STEPS in mm."""
    affine = np.eye(4)
    affine[:3, :3] = directions * STEPS
    affine[:3, 3] = (-12.5, 40.25, 7.125)
    return affine


def segmented(path, folder, names=None, **choice):
    """Segment an image by its brightness and return the image and its mask's file, in the image's own format."""
    image = read_image(path, **choice)
    module, reason = mask_format(image)
    assert reason is None
    mask = folder / f"mask{module.mask_ending(image)}"
    module.write_mask(mask, (image.array > 127).astype(np.uint8), {1: "object"}, image)
    return image, mask


def seen_by_itk(path):
    """Return what ITK reads from a file: origin, spacing and direction, and the array."""
    image = sitk.ReadImage(str(path))
    return (image.GetOrigin(), image.GetSpacing(), image.GetDirection()), sitk.GetArrayFromImage(image)


def places(values, affine):
    """Return the places, mm, of the voxels of an object, KxJxI, in one order."""
    found = np.argwhere(values.T) @ affine[:3, :3].T + affine[:3, 3]
    return found[np.lexsort(np.round(found, 3).T)]


# --- formats with a grid ---


def write_nifti(path, affine):
    nib.save((nib.Nifti1Pair if path.suffix == ".img" else nib.Nifti1Image)(SCAN.T, affine), path)


def write_itk(path, affine):
    image, lps = sitk.GetImageFromArray(SCAN), TO_RAS @ affine
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetSpacing(STEPS.tolist())
    image.SetDirection((lps[:3, :3] / STEPS).ravel().tolist())
    sitk.WriteImage(image, str(path))


@tilted
@turned
@pytest.mark.parametrize(
    ("name", "write"),
    [("v.nii.gz", write_nifti), ("v.img", write_nifti), ("v.nrrd", write_itk), ("v.mha", write_itk)],
    ids=["nifti", "pair", "nrrd", "mha"],
)
def test_grids(tmp_path, name, write, turn, tilt):
    write(tmp_path / name, place_of(tilt @ turn))
    image, mask = segmented(tmp_path / name, tmp_path)
    (source, scan), (found, labels) = seen_by_itk(tmp_path / name), seen_by_itk(mask)
    np.testing.assert_array_equal(labels, scan > 127)
    assert labels.sum() == OBJECT.sum()
    for one, other in zip(source, found, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-9)
    np.testing.assert_allclose(image.geometry.affine, place_of(tilt @ turn), atol=1e-5)
    if write is write_nifti:
        scan, labels = nib.load(tmp_path / name), nib.load(mask)
        np.testing.assert_array_equal(labels.affine, scan.affine)
        np.testing.assert_array_equal(np.asarray(labels.dataobj).T, OBJECT)


@turned
@pytest.mark.parametrize("codes", [(0, 0), (0, 2), (1, 0), (1, 4)])
def test_forms_of_nifti_that_differ(tmp_path, codes, turn):
    """Readers choose differently between them, and have their own defaults."""
    file = tmp_path / "v.nii"
    write_nifti(file, place_of(TILT @ turn))
    content = file.read_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    header["qform_code"], header["sform_code"], header["qoffset_x"] = *codes, 27.5
    file.write_bytes(header.binaryblock + content[348:])
    _, mask = segmented(file, tmp_path)
    (source, _), (found, labels) = seen_by_itk(file), seen_by_itk(mask)
    assert found == source
    np.testing.assert_array_equal(labels, OBJECT)
    scan, labels = nib.load(file), nib.load(mask)
    np.testing.assert_array_equal(labels.affine, scan.affine)
    for form in ("get_qform", "get_sform"):
        for one, other in zip(getattr(scan, form)(coded=True), getattr(labels, form)(coded=True), strict=True):
            np.testing.assert_array_equal(other, one)


# --- DICOM: third axis of the grid along the normal of the slices ---

PLANES = [turn for turn in TURNS if np.linalg.det(turn) > 0]
planes = pytest.mark.parametrize("turn", PLANES, ids=[NAMES[i] for i, t in enumerate(TURNS) if np.linalg.det(t) > 0])


def read_seg(path):
    """Return the array, KxJxI, and the affine (right-anterior-superior) of a SEG, as highdicom reads it."""
    volume = hd.seg.segread(path).get_volume(combine_segments=True)
    # highdicom's axes are slice, row, column.
    return volume.array, TO_RAS @ volume.affine @ np.eye(4)[[2, 1, 0, 3]]


@tilted
@planes
def test_series_of_dicom(tmp_path, write_series, turn, tilt):
    lps = tilt @ turn
    write_series(
        tmp_path / "ct", SCAN, spacing=STEPS[1::-1].tolist(), gap=float(STEPS[2]), directions=(lps[:, 0], lps[:, 1])
    )
    _, mask = segmented(tmp_path / "ct", tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "ct")))
    scan = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(scan.GetDirection(), (3, 3)) * scan.GetSpacing()
    affine[:3, 3] = scan.GetOrigin()
    expected = places(sitk.GetArrayFromImage(scan) > 127, TO_RAS @ affine)
    assert len(expected) == OBJECT.sum()
    np.testing.assert_allclose(places(*read_seg(mask)), expected, atol=1e-4)


def functional_groups(**groups):
    item = Dataset()
    for keyword, values in groups.items():
        group = Dataset()
        for name, value in values.items():
            setattr(group, name, value)
        setattr(item, keyword, [group])
    return item


@tilted
def test_enhanced_multi_frame_dicom(tmp_path, write_image, tilt):
    order = (3, 0, 4, 1, 2)  # in which the slices are stored
    first = np.array((5.0, -6, 7))
    positions = [(first + STEPS[2] * k * tilt[:, 2]).round(6).tolist() for k in order]
    shared = functional_groups(
        PlaneOrientationSequence={"ImageOrientationPatient": tilt[:, :2].T.ravel().round(8).tolist()},
        PixelMeasuresSequence={"PixelSpacing": STEPS[1::-1].tolist(), "SliceThickness": STEPS[2]},
    )
    write_image(
        tmp_path / "ct.dcm",
        SCAN[list(order)],
        NumberOfFrames=5,
        SOPClassUID=EnhancedCTImageStorage,
        FrameOfReferenceUID="1.2.3.5",
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[
            functional_groups(PlanePositionSequence={"ImagePositionPatient": place}) for place in positions
        ],
    )
    _, mask = segmented(tmp_path / "ct.dcm", tmp_path)
    scan = hd.imread(tmp_path / "ct.dcm").get_volume()
    expected = places(scan.array > 127, TO_RAS @ scan.affine @ np.eye(4)[[2, 1, 0, 3]])
    assert len(expected) == OBJECT.sum()
    np.testing.assert_allclose(places(*read_seg(mask)), expected, atol=1e-4)


# --- formats without a place in space: the mask has the source's own pixels ---

STACK = np.where(OBJECT, 200, 20).astype(np.uint8)


@pytest.mark.parametrize("array", [STACK, STACK[2]], ids=["stack", "page"])
@pytest.mark.parametrize("kind", ["plain", "ImageJ", "OME"])
def test_tiff(tmp_path, kind, array):
    axes = "ZYX"[-array.ndim :]
    size = {f"PhysicalSize{axis}": float(step) for axis, step in zip("XYZ", STEPS, strict=True)}
    units = {f"{name}Unit": "mm" for name in size}
    options = {
        "plain": {"photometric": "minisblack"},
        "ImageJ": {
            "imagej": True,
            "resolution": (1 / STEPS[0], 1 / STEPS[1]),
            "metadata": {"axes": axes, "unit": "mm"} | ({"spacing": STEPS[2]} if array.ndim == 3 else {}),
        },
        "OME": {"ome": True, "photometric": "minisblack", "metadata": {"axes": axes} | size | units},
    }
    tifffile.imwrite(tmp_path / "v.tif", array, **options[kind])
    image, mask = segmented(tmp_path / "v.tif", tmp_path)
    scan, labels = tifffile.imread(tmp_path / "v.tif"), tifffile.imread(mask)
    np.testing.assert_array_equal(labels, scan > 127)
    if kind == "plain":
        assert image.spacing is None
        return
    np.testing.assert_allclose(image.spacing, STEPS[: array.ndim][::-1], rtol=1e-6)
    with tifffile.TiffFile(mask) as file:
        tags = file.pages[0].tags
        steps = [tags[name].value[1] / tags[name].value[0] for name in ("XResolution", "YResolution")]
        steps += [file.imagej_metadata["spacing"]] if array.ndim == 3 else []
        assert file.imagej_metadata["unit"] == "mm"
    np.testing.assert_allclose(steps, STEPS[: array.ndim], rtol=1e-5)


@pytest.mark.parametrize("array", [STACK[2], STACK[2].astype(np.uint16) * 250, np.stack([STACK[2]] * 3, axis=2)])
def test_png(tmp_path, array):
    PIL.Image.fromarray(array).save(tmp_path / "v.png")
    _, mask = segmented(tmp_path / "v.png", tmp_path)
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(mask)), OBJECT[2])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_jpeg(tmp_path, orientation):
    """The mask lies on the picture as viewers show it."""
    exif = PIL.Image.Exif()
    exif[274] = orientation
    stored = PIL.Image.fromarray(np.kron(STACK[2], np.ones((8, 8), np.uint8)))
    stored.save(tmp_path / "v.jpg", exif=exif, quality=95)
    _, mask = segmented(tmp_path / "v.jpg", tmp_path)
    shown = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(tmp_path / "v.jpg")))
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(mask)), shown > 127)
    assert shown.shape == (stored.size if orientation > 4 else stored.size[::-1])


@pytest.mark.parametrize("array", [STACK, STACK[2], np.stack([STACK[2]] * 3, axis=2)])
def test_npz(tmp_path, array):
    np.savez(tmp_path / "2D_MR_1.npz", imgs=array, boxes=np.array([[0, 0, 3, 3]]))
    _, mask = segmented(tmp_path / "2D_MR_1.npz", tmp_path)
    np.testing.assert_array_equal(np.load(mask)["segs"], (array if array.shape[-1] != 3 else array[..., 0]) > 127)
