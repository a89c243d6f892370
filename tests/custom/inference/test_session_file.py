"""The files of sessions."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image as Picture

from custom import Predictor, Session
from custom.errors import InputError
from custom.inference.session_file import points_along, run_lengths

SIZE = (12, 16)
BOX, CLICK = [2, 1, 9, 8], [4, 4]


@pytest.fixture
def predictor(make_backend, make_model):
    return Predictor(network=make_model(make_backend()))


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, SIZE).astype(np.uint8)
    Picture.fromarray(pixels).save(tmp_path / "eye.png")
    return tmp_path / "eye.png"


def test_the_file_can_be_moved_with_its_image(predictor, picture, tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[3:8, 4:11] = 7
    Picture.fromarray(labels).save(tmp_path / "old.png")
    session = Session(predictor, picture, "US", suv_max=5, overlap="last")
    session.add_object("a", mask=tmp_path / "old.png")
    session.add_object("b", mask=labels > 0, box=BOX)
    session.click(1, CLICK, 0)
    session.undo()
    session.save(tmp_path / "eye.json")
    content = json.loads((tmp_path / "eye.json").read_text())
    assert content["image"]["path"] == "eye.png" and content["actions"][0]["mask"]["path"] == "old.png"
    assert sum(content["actions"][1]["mask"]["runs"]) == 192 and content["objects"][1]["mask"] is True
    (tmp_path / "new").mkdir()
    for name in ("eye.png", "old.png", "eye.json"):
        shutil.move(tmp_path / name, tmp_path / "new" / name)
    loaded = Session.load(tmp_path / "new" / "eye.json", session.predictor)
    assert loaded.options == session.options and loaded.can_redo and loaded.image.modality == "US"
    for number, mask in session.masks.items():
        np.testing.assert_array_equal(loaded.masks[number], mask)
    np.testing.assert_array_equal(loaded.objects[1].mask.array, labels > 0)
    loaded.redo()
    session.redo()
    np.testing.assert_array_equal(loaded.masks[1], session.masks[1])
    Picture.fromarray(labels // 7 * np.arange(16, dtype=np.uint8)).save(tmp_path / "new" / "old.png")
    with pytest.raises(InputError, match="old.png: mask: found "):
        Session.load(tmp_path / "new" / "eye.json", session.predictor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="x"), "format: found"),
        (lambda c: c.update(version=2), "version: found 2; allowed: 1"),
        (lambda c: c.update(position=9), "position: found 9; allowed: 0 to 2"),
        (lambda c: c.update(position=1), "objects: found other objects than its actions give"),
        (lambda c: c.update(actions={}), "actions: found"),
        (lambda c: c["actions"].append(3), r"actions\[2\]: action: found 3"),
        (lambda c: c["actions"][1].update(id=5), "object: found 5"),
        (lambda c: c["actions"][1].update(points=[[99, 1]]), "points.0..0.: found"),
        (lambda c: c["actions"][0]["mask"].update(runs=[5]), r"actions\[0\]: mask: found"),
        (lambda c: c["actions"][0]["mask"].update(runs=[-1, 193]), r"actions\[0\]: mask: found"),
        (lambda c: c["options"].pop("window"), "options: found"),
        (lambda c: c["options"].update(overlap="first"), "overlap: found 'first'"),
        (lambda c: c["image"].update(path="none.png"), "none.png"),
        (lambda c: c["image"].update(digest="0"), "image: found .*eye.png, which has changed"),
    ],
)
def test_bad_files(predictor, picture, tmp_path, change, message):
    session, file = Session(predictor, picture), tmp_path / "eye.json"
    session.add_object(mask=np.eye(*SIZE))
    session.click(1, CLICK)
    session.save(file)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as error:
        Session.load(file, session.predictor)
    assert "\n" not in str(error.value)


def test_no_file_and_another_image(predictor, picture, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Session.load(tmp_path / "none.json", predictor)
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(InputError, match=r"list.json: format: found \[1\]"):
        Session.load(tmp_path / "list.json", predictor)
    Session(predictor, picture).save(tmp_path / "eye.json")
    Picture.fromarray(np.zeros(SIZE, np.uint8)).save(picture)
    with pytest.raises(InputError, match="eye.json: image: found .*, which has changed; allowed: the image of the"):
        Session.load(tmp_path / "eye.json", predictor)


def test_a_failed_save_keeps_the_old_file(predictor, picture, tmp_path, monkeypatch):
    session = Session(predictor, picture)
    session.save(tmp_path / "eye.json")
    before = (tmp_path / "eye.json").read_bytes()
    session.add_object(box=BOX)
    monkeypatch.setattr("custom.atomic_write.os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        session.save(tmp_path / "eye.json")
    assert (tmp_path / "eye.json").read_bytes() == before and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("corners", "step", "expected"),
    [
        ([[3, 4]], 2, [[3, 4]]),
        ([[3, 4], [3, 4]], 2, [[3, 4]]),
        ([[0, 0], [10, 0]], 4, [[0, 0], [3, 0], [7, 0], [10, 0]]),
        ([[0, 0], [2, 0], [2, 2]], 2, [[0, 0], [2, 0], [2, 2]]),
        ([[0, 0, 1], [1, 0, 1]], 0.1, [[0, 0, 1], [1, 0, 1]]),  # no pixel twice in a row
    ],
)
def test_points_along(corners, step, expected):
    np.testing.assert_array_equal(points_along(corners, step), expected)


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths(seed):
    mask = np.random.default_rng(seed).random((5, 7)) < 0.5 if seed else np.zeros((5, 7), bool)
    runs = run_lengths(mask)
    values = np.arange(len(runs)) % 2 == 1
    np.testing.assert_array_equal(np.repeat(values, runs).reshape(mask.shape), mask)
    assert all(runs[1:])
