import json

import numpy as np
import pytest
from PIL import Image

from custom.errors import InputError
from data_prep.show import TILE, show


@pytest.fixture
def prepared(tmp_path):
    """One grey picture, twice as wide as high, with one square of id 3, and one volume in colour."""
    (tmp_path / "arrays").mkdir()
    cases = []
    for case, modality, shape, channels in (("a" * 80, "US", (1, 96, 192), 1), ("b", "MR", (4, 50, 40), 3)):
        image = np.full(shape if channels == 1 else (*shape, 3), 100, np.uint8)
        label = np.zeros(shape, np.uint8)
        label[-1, 20:41, 10:31] = 3
        np.save(tmp_path / "arrays" / f"{case}.image.npy", image)
        np.save(tmp_path / "arrays" / f"{case}.label.npy", label)
        cases.append(
            {
                "case": case,
                "modality": modality,
                "dataset": "Set",
                "dimension": 2 if shape[0] == 1 else 3,
                "image": f"arrays/{case}.image.npy",
                "label": f"arrays/{case}.label.npy",
                "shape": shape,
                "channels": channels,
                "spacing": None,
                "labels": {"3": "square"},
                "slices": [[shape[0] - 1, [3]]],
            }
        )
    index = {"format": "mcp-medsam-prepared", "version": 1, "name": "x", "modalities": ["MR", "US"]}
    index |= {"training": cases, "validation": []}
    (tmp_path / "dataset.json").write_text(json.dumps(index))
    return tmp_path


def test_the_mask_lies_where_the_label_is(prepared, tmp_path):
    out = show(prepared, tmp_path / "new" / "sheet.png", columns=1)
    sheet = np.asarray(Image.open(out)).astype(int)
    tinted = (sheet[..., 1] > sheet[..., 0] + 20) & (sheet[..., 1] > sheet[..., 2] + 20)
    rows = np.flatnonzero(tinted[len(sheet) // 2 :].any(axis=1))  # the second modality is US, drawn at its own size
    columns = np.flatnonzero(tinted[len(sheet) // 2 :].any(axis=0))
    assert rows[-1] - rows[0] + 1 == columns[-1] - columns[0] + 1 == 21 + 2  # the square, and the box around it
    left = (sheet.shape[1] - TILE) // 2
    assert columns[0] == left + 10 - 1
    image = np.flatnonzero((sheet[len(sheet) // 2 :] == 100).all(axis=2).any(axis=1))
    assert rows[0] - image[0] == 20 - 1 and image[-1] - image[0] + 1 == 96


def test_the_same_sheet_every_time(prepared_demo, tmp_path):
    sheets = [
        show(prepared_demo.root, tmp_path / f"{n}.png", per_modality=3, seed=seed) for n, seed in enumerate((0, 0, 1))
    ]
    first, again, other = (path.read_bytes() for path in sheets)
    assert first == again != other


@pytest.mark.parametrize(("per_modality", "columns", "lines"), [(1, 1, 1), (1, 5, 1), (4, 2, 2)])
def test_size(prepared_demo, tmp_path, per_modality, columns, lines):
    out = show(prepared_demo.root, tmp_path / "s.png", per_modality=per_modality, columns=columns)
    tile, heading = (TILE + 8, TILE + 20), 22  # with margins and caption
    height = len(prepared_demo.modalities) * (heading + lines * tile[1])
    assert Image.open(out).size == (columns * tile[0], height)


def test_damaged_index(prepared, tmp_path):
    path = prepared / "dataset.json"
    path.write_text(path.read_text().replace("[3]", "[3, 5]"))
    with pytest.raises(InputError, match=r"b\.label\.npy: slice 3: found no pixel of id 5") as error:
        show(prepared, tmp_path / "s.png")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", [{"per_modality": 0}, {"columns": True}, {"columns": "a"}])
def test_bad_numbers(prepared, tmp_path, option):
    with pytest.raises(InputError, match=f"{next(iter(option))}: found .*; allowed: a whole number of at least 1"):
        show(prepared, tmp_path / "s.png", **option)


def test_a_folder_is_no_picture(prepared, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder: out: found .*; allowed: a file that can be written"):
        show(prepared, tmp_path / "folder")
    assert not list(tmp_path.glob(".*partial"))
