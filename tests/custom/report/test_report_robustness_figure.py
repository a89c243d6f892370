from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from custom.errors import InputError
from custom.report import robustness_figure as module
from custom.report.robustness_figure import draw, redraw

HEADER = "checkpoint,boxes,value,dsc,nsd\n"
LINES = "a,shift,0,80.0,70.0\na,shift,5,75.0,60.0\na,enlargement,0,80.0,70.0\n"


def test_the_table_gives_the_numbers_that_are_drawn(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(module, "draw", lambda rows: given.append(rows) or draw(rows))
    (tmp_path / "robustness.csv").write_text(HEADER + LINES)
    redraw(str(tmp_path / "robustness.csv"), str(tmp_path / "out.png"))
    assert given == [
        [
            {"checkpoint": "a", "boxes": "shift", "value": 0.0, "dsc": 80.0, "nsd": 70.0},
            {"checkpoint": "a", "boxes": "shift", "value": 5.0, "dsc": 75.0, "nsd": 60.0},
            {"checkpoint": "a", "boxes": "enlargement", "value": 0.0, "dsc": 80.0, "nsd": 70.0},
        ]
    ]
    Image.open(BytesIO((tmp_path / "out.png").read_bytes())).verify()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "No such file"),
        (HEADER, "lines: found none"),
        ("checkpoint,boxes,value,dsc\na,shift,0,80\n", "columns: found no nsd"),
        (HEADER + LINES + "a,shift,0,80.0,much\n", "line 5: found .*much"),
        (HEADER + "a,shift,0\n", "line 2: found .*NoneType"),
        (b"\xff\xfe", "file: found"),
        ("value,dsc,nsd\n0,80,70\n", "columns: found no checkpoint, boxes"),
    ],
)
def test_a_table_that_cannot_be_drawn_is_named_and_nothing_is_written(tmp_path, text, found):
    if text is not None:
        (tmp_path / "robustness.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=found):
        redraw(str(tmp_path / "robustness.csv"), str(tmp_path / "out.png"))
    assert not Path(tmp_path / "out.png").exists()
