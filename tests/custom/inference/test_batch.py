import json
import os

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from custom.errors import InputError
from custom.inference import batch as program
from custom.inference.batch import SegmentOptions, check_out, segment_case, segment_cases
from custom.inference.box_input import BoxInput
from custom.inference.cases import Case, list_cases
from custom.inference.predictor import Predictor

BOX, BOX_3D = [[2, 2, 12, 9]], [[2, 2, 1, 12, 9, 3]]


@pytest.fixture
def images(tmp_path):
    """A folder with a bright block in an image of each format, and the list of their boxes."""
    folder = tmp_path / "in"
    folder.mkdir()
    picture = np.zeros((12, 16), np.uint8)
    picture[4:8, 5:11] = 200
    stack = np.stack([picture] * 5)
    Image.fromarray(picture).save(folder / "png.png")
    tifffile.imwrite(folder / "stack.tif", stack, photometric="minisblack")
    nib.save(nib.Nifti1Image(stack.transpose(2, 1, 0), np.diag([-1, -1, 2, 1])), folder / "nifti.nii.gz")
    np.savez(folder / "2D_OCT_a.npz", imgs=picture, boxes=BOX)
    np.savez(folder / "3D_CT_b.npz", imgs=stack, boxes=BOX_3D)
    boxes = {"png.png": BOX, "stack.tif": BOX_3D, "nifti.nii.gz": BOX_3D, "2D_OCT_a.npz": None, "3D_CT_b.npz": None}
    entries = [{"image": f"in/{name}", "boxes": box, "modality": "US"} for name, box in boxes.items()]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    return tmp_path / "list.json"


@pytest.fixture
def make_predictor(make_model):
    return lambda backend: Predictor(network=make_model(backend), embeddings=0)


def case_of(name, path, boxes, **fields):
    return Case(name=name, path=str(path), boxes=BoxInput.parse(boxes), **fields)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def labels_of(out):
    return {
        "png": np.asarray(Image.open(out / "png_mask.png")),
        "stack": tifffile.imread(out / "stack_mask.tif"),
        "nifti": np.asarray(nib.load(out / "nifti_mask.nii.gz").dataobj).transpose(2, 1, 0),
        "2D_OCT_a": np.load(out / "2D_OCT_a.npz")["segs"],
        "3D_CT_b": np.load(out / "3D_CT_b.npz")["segs"],
    }


def test_every_format(images, tmp_path, make_backend, make_predictor):
    backend, out = make_backend(), tmp_path / "out"
    summary = segment_cases(list_cases(images)[0], make_predictor(backend), SegmentOptions(), out)
    assert summary.written == ["png", "stack", "nifti", "2D_OCT_a", "3D_CT_b"]
    assert not summary.failed and not summary.skipped
    for name, found in labels_of(out).items():
        expected = np.zeros((12, 16), np.uint8)
        expected[4:8, 5:11] = 1
        if found.ndim == 3:
            expected = np.stack([expected * (1 <= z <= 3) for z in range(5)])
        np.testing.assert_array_equal(found, expected, name)
    assert len(backend.encoded) == 1 + 3 + 3 + 1 + 3 and len(names(out)) == 3 * 5 + 1
    report = json.loads((out / "nifti.json").read_text())
    assert report["boxes"][0]["box"] == BOX_3D[0] and report["boxes"][0]["voxels"] == 3 * 4 * 6
    assert report["model"]["checkpoint"] == "fake.pt" and report["options"]["overlap"] == "logit"


def test_second_run_does_only_what_has_changed(images, tmp_path, make_backend, make_predictor):
    out, cases = tmp_path / "out", list_cases(images)[0]
    segment_cases(cases, make_predictor(make_backend()), SegmentOptions(), out)
    before = {name: (out / name).stat().st_mtime_ns for name in names(out)}

    def broken():
        raise AssertionError("started although there is nothing to do")

    model = make_predictor(make_backend())
    model.network._make = broken
    summary = segment_cases(cases, model, SegmentOptions(), out)
    assert (summary.written, summary.skipped, summary.failed) == ([], 5, [])
    assert {n: (out / n).stat().st_mtime_ns for n in names(out) if n != "report_0.json"}.items() <= before.items()
    os.utime(cases[0].path, ns=(1, 1))
    (out / "stack_mask.tif").unlink()
    summary = segment_cases(cases, make_predictor(make_backend()), SegmentOptions(), out)
    assert summary.written == ["png", "stack"] and summary.skipped == 3
    assert len(segment_cases(cases, make_predictor(make_backend()), SegmentOptions(follow=False), out).written) == 5


def test_bad_cases_do_not_stop_the_others(images, tmp_path, make_backend, make_predictor, capsys):
    out = tmp_path / "out"
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "in" / "alone.png")
    cases, _ = list_cases(tmp_path / "in")
    summary = segment_cases(cases, make_predictor(make_backend()), SegmentOptions(), out)
    assert summary.written == ["2D_OCT_a", "3D_CT_b"] and len(summary.failed) == 5
    alone, bad, *_ = summary.failed
    assert alone.startswith(f"{tmp_path}/in/alone.png: boxes: found no boxes; allowed: --boxes")
    assert bad.startswith(f"{tmp_path}/in/bad.png: file: found ")
    assert capsys.readouterr().err.count("failed: ") == 5
    report = json.loads((out / "report_0.json").read_text())
    assert report == {"written": summary.written, "skipped": 0, "failed": summary.failed}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"boxes": [[5, 2, 5, 9]]}, "boxes[0]: found [5, 2, 5, 9]; allowed: x_min < x_max"),
        ({"boxes": []}, "boxes: found []"),
        ({"boxes": BOX_3D}, "6 numbers per box for a picture"),
        ({"boxes": BOX, "modality": "SPECT"}, "modality: found 'SPECT'"),
        ({"path": "nifti.nii.gz", "boxes": BOX}, "4 numbers per box for a volume"),
    ],
)
def test_bad_case(images, tmp_path, make_backend, make_predictor, case, message):
    backend = make_backend()
    path = tmp_path / "in" / case.get("path", "png.png")
    with pytest.raises(InputError) as error:
        made = case_of("a", path, case["boxes"], modality=case.get("modality"))
        segment_case(made, make_predictor(backend), SegmentOptions(), tmp_path / "out")
    assert message in str(error.value) and not backend.encoded and not (tmp_path / "out").exists()


def test_error_inside_the_network_is_reported(images, tmp_path, make_backend, make_predictor):
    backend = make_backend()
    backend.decode = lambda *_: 1 / 0
    summary = segment_cases(list_cases(images)[0][:1], make_predictor(backend), SegmentOptions(), tmp_path / "out")
    assert summary.failed == [f"{tmp_path}/in/png.png: ZeroDivisionError (division by zero)"]


@pytest.mark.parametrize("error", [InputError("x.pt", "checkpoint", "no file", "a file"), RuntimeError("no device")])
def test_network_that_cannot_start_stops_the_run(images, tmp_path, make_backend, make_predictor, error):
    model = make_predictor(make_backend())

    def broken():
        raise error

    model.network._make = broken
    with pytest.raises(type(error)):
        segment_cases(list_cases(images)[0], model, SegmentOptions(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_full_disk_stops_the_run_and_the_next_one_carries_on(
    images, tmp_path, make_backend, make_predictor, monkeypatch
):
    out, cases, backend, real = tmp_path / "out", list_cases(images)[0], make_backend(), program.write_result

    def full(result, folder, name, *given, **named):
        if name == "nifti":
            raise OSError(28, "No space left on device")
        return real(result, folder, name, *given, **named)

    monkeypatch.setattr(program, "write_result", full)
    with pytest.raises(OSError, match="No space"):
        segment_cases(cases, make_predictor(backend), SegmentOptions(), out)
    assert len(backend.encoded) == 7
    monkeypatch.undo()
    summary = segment_cases(cases, make_predictor(make_backend()), SegmentOptions(), out)
    assert summary.skipped == 2 and summary.written == ["nifti", "2D_OCT_a", "3D_CT_b"]


def test_shares(images, tmp_path, make_backend, make_predictor):
    out, cases = tmp_path / "out", list_cases(images)[0]
    parts = [
        segment_cases(cases, make_predictor(make_backend()), SegmentOptions(), out, rank=r, world=2) for r in range(2)
    ]
    assert [part.written for part in parts] == [["png", "nifti", "3D_CT_b"], ["stack", "2D_OCT_a"]]
    assert {"report_0.json", "report_1.json"} <= set(names(out))


def test_separate_masks(images, tmp_path, make_backend, make_predictor):
    case = case_of("a", tmp_path / "in" / "png.png", [*BOX, [4, 3, 11, 8]], modality="US")
    report = segment_case(case, make_predictor(make_backend()), SegmentOptions(separate=True), tmp_path / "out")
    assert names(tmp_path / "out") == ["a.json", "a_mask_1.png", "a_mask_2.png", "a_overlay.png"]
    assert [entry["area"] for entry in report["boxes"]] == [24, 24]


def test_series_comes_back_as_seg(tmp_path, write_series, make_backend, make_predictor):
    slices = np.full((4, 12, 16), -500)
    slices[:, 4:8, 5:11] = 400
    case = case_of("ct", write_series(tmp_path / "ct", slices), BOX_3D)
    report = segment_case(case, make_predictor(make_backend(likely="PET")), SegmentOptions(), tmp_path / "out")
    assert names(tmp_path / "out") == ["ct.json", "ct_mask.dcm", "ct_overlay.png"]
    (entry,) = report["boxes"]
    assert entry["voxels"] == 3 * 4 * 6 and entry["volume_mm3"] == round(72 * 2.5 * 0.8 * 0.6, 4)
    assert (report["modality"], report["modality_source"]) == ("CT", "DICOM")
    assert entry["warning"].endswith("declared CT, but it looks like PET (84%)")


def test_unknown_modality_is_the_classifiers(images, tmp_path, make_backend, make_predictor):
    case = case_of("a", tmp_path / "in" / "png.png", BOX)
    report = segment_case(case, make_predictor(make_backend(likely="OCT")), SegmentOptions(), tmp_path / "out")
    assert (report["modality"], report["modality_source"]) == ("OCT", "classifier")


@pytest.mark.parametrize(
    ("out", "name", "taken"),
    [
        ("in", "2D_OCT_a", "2D_OCT_a.npz"),
        (".", "list", "list.json"),
        ("in", "pn", None),
        ("elsewhere", "2D_OCT_a", None),
    ],
)
def test_results_do_not_replace_inputs(images, tmp_path, out, name, taken):
    cases = [*list_cases(images)[0], Case(name=name, path="x.png")]
    if taken is None:
        cases = cases[:1] + cases[-1:]
        check_out(tmp_path / out, cases, images)
        return
    with pytest.raises(InputError, match=f"arguments: out: found .*, where {taken} is an input; allowed: another"):
        check_out(tmp_path / out, cases, images)


def test_thousand_boxes(images, tmp_path, make_backend, make_predictor):
    corners = np.random.default_rng(0).integers(0, [10, 6], (1000, 2))
    boxes = np.concatenate([corners, corners + 5], axis=1).tolist()
    backend = make_backend()
    case = case_of("a", tmp_path / "in" / "png.png", boxes, modality="US")
    report = segment_case(case, make_predictor(backend), SegmentOptions(overlap="last"), tmp_path / "out")
    assert len(report["boxes"]) == 1000 and len(backend.encoded) == 1
    assert np.asarray(Image.open(tmp_path / "out" / "a_mask.png")).dtype == np.uint16


def test_image_that_changes_while_it_is_segmented_is_done_again(images, tmp_path, make_backend, make_predictor):
    case, backend, out = list_cases(images)[0][:1], make_backend(), tmp_path / "out"
    decode = backend.decode

    def replaced_meanwhile(*given):
        os.utime(case[0].path, ns=(5, 5))
        return decode(*given)

    backend.decode = replaced_meanwhile
    assert segment_cases(case, make_predictor(backend), SegmentOptions(), out).written == ["png"]
    summary = segment_cases(case, make_predictor(make_backend()), SegmentOptions(), out)
    assert summary.written == ["png"] and not summary.skipped
    assert segment_cases(case, make_predictor(make_backend()), SegmentOptions(), out).skipped == 1


def test_series_that_vanishes_is_one_failed_case(images, tmp_path, make_backend, make_predictor, write_series):
    folder = write_series(tmp_path / "ct" / "deep", np.zeros((3, 9, 9)))
    gone = [case_of("ct", tmp_path / "ct", BOX_3D), *list_cases(images)[0][:1]]
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    summary = segment_cases(gone, make_predictor(make_backend()), SegmentOptions(), tmp_path / "out")
    assert summary.written == ["png"] and len(summary.failed) == 1


def test_names_that_can_be_no_files_do_not_stop_the_others(images, tmp_path, make_predictor, make_backend):
    entries = [{"image": name, "boxes": BOX, "modality": "US"} for name in ("a\0b.png", "x" * 5000, "..")]
    images.write_text(json.dumps([*entries, {"image": "in/png.png", "boxes": BOX, "modality": "US"}]))
    summary = segment_cases(list_cases(images)[0], make_predictor(make_backend()), SegmentOptions(), tmp_path / "out")
    assert summary.written == ["png"] and len(summary.failed) == 3


def test_a_long_name(tmp_path, make_predictor, make_backend):
    """A file may have a name of 255 bytes; those of its results are longer."""
    Image.fromarray(np.full((12, 16), 200, np.uint8)).save(tmp_path / f"{'x' * 251}.png")
    (case,) = list_cases(tmp_path / f"{'x' * 251}.png", boxes=BOX, modality="US")[0]
    summary = segment_cases([case], make_predictor(make_backend()), SegmentOptions(), tmp_path / "out")
    assert summary.failed == [] and len(names(tmp_path / "out")) == 4


def test_the_fallback_is_announced_before_the_network_runs(
    tmp_path, write_series, make_backend, make_predictor, caplog
):
    """A source without a possible SEG: the mask has another format, and the user is warned beforehand."""
    folder = write_series(tmp_path / "ct", np.full((4, 12, 16), 400), FrameOfReferenceUID="")
    backend = make_backend()
    encode, seen = backend.encode, []
    backend.encode = lambda images: seen.append(caplog.text) or encode(images)
    report = segment_case(case_of("ct", folder, BOX_3D), make_predictor(backend), SegmentOptions(), tmp_path / "out")
    assert "the mask is written as nifti: " in seen[0] and report["files"][0] == "ct_mask.nii.gz"
    assert report["mask_format"] == "nifti" and report["warnings"]


def test_a_format_that_cannot_hold_the_mask_is_refused_before_the_work(images, tmp_path, make_backend, make_predictor):
    backend, case = make_backend(), case_of("a", tmp_path / "in" / "nifti.nii.gz", BOX_3D)
    for name, message in (("png", "format png: found a volume"), ("seg", "format seg: found ")):
        with pytest.raises(InputError, match=message):
            segment_case(case, make_predictor(backend), SegmentOptions(format=name), tmp_path / "out")
    assert not backend.encoded
    with pytest.raises(InputError, match="arguments: format: found 'gif'; allowed: mgz, mha, nifti, npz"):
        SegmentOptions(format="gif")


@pytest.mark.parametrize("kind", ["file", "below a file"])
def test_out_is_checked_before_the_work(images, tmp_path, kind):
    (tmp_path / "taken").touch()
    out = tmp_path / "taken" if kind == "file" else tmp_path / "taken" / "out"
    with pytest.raises(InputError, match="arguments: out: found .*; allowed: a folder that can be written"):
        check_out(out, list_cases(images)[0], images)


def test_checking_out_leaves_nothing(images, tmp_path):
    check_out(tmp_path / "new" / "out", list_cases(images)[0], images)
    assert not (tmp_path / "new").exists()


def test_progress_of_a_volume(images, tmp_path, make_backend, make_predictor, capsys):
    case = case_of("a", tmp_path / "in" / "nifti.nii.gz", BOX_3D)
    segment_case(case, make_predictor(make_backend()), SegmentOptions(), tmp_path / "out")
    assert "slice" in capsys.readouterr().err


def test_the_mask_of_a_pair_is_two_files(tmp_path, make_backend, make_predictor):
    volume = np.zeros((16, 12, 5), np.uint8)
    volume[5:11, 4:8] = 200
    nib.save(nib.Nifti1Pair(volume, np.diag([-1, -1, 2, 1])), tmp_path / "v.hdr")
    case, out = case_of("v", tmp_path / "v.hdr", BOX_3D, modality="MR"), tmp_path / "out"
    report = segment_case(case, make_predictor(make_backend()), SegmentOptions(), out)
    assert report["files"] == ["v_mask.hdr", "v_mask.img", "v_overlay.png"]
    np.testing.assert_array_equal(np.asarray(nib.load(out / "v_mask.hdr").dataobj)[:, :, 1:4], volume[:, :, 1:4] > 0)
    assert segment_cases([case], make_predictor(make_backend()), SegmentOptions(), out).skipped == 1
    (out / "v_mask.img").unlink()
    assert segment_cases([case], make_predictor(make_backend()), SegmentOptions(), out).written == ["v"]
    segment_case(case, make_predictor(make_backend()), SegmentOptions(format="nrrd"), out)
    assert names(out) == ["report_0.json", "v.json", "v_mask.nrrd", "v_overlay.png"]
