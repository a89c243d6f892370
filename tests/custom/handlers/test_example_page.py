import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image

from custom.handlers import ExamplePage, example_page
from custom.handlers.example_page import Example, draw_page


def output(modality, overlap, case):
    """A slice whose mask of 10 columns is predicted with ``overlap`` of them: DSC overlap / 10."""
    label, pred = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    label[:, :10, :10] = True
    pred[:, :10, 10 - overlap : 20 - overlap] = True
    result = {"modality": modality, "label": label, "pred": pred, "case": case, "slice": 0}
    return {"image": torch.rand(3, 256, 256), "pred": torch.zeros(1, 256, 256), "result": result}


@pytest.fixture
def pages(monkeypatch):
    """The arguments of the drawing, instead of a drawing."""
    drawn = []
    monkeypatch.setattr(example_page, "draw_page", lambda rows: drawn.append(rows) or np.zeros((4, 4, 3), np.uint8))
    return drawn


def evaluate(folder, items):
    def step(engine, item):
        engine.state.batch = [{"boxes": torch.tensor([[0.0, 0.0, 40.0, 40.0]])}]
        return [output(*item)]

    engine = Engine(step)
    ExamplePage(output_dir=folder).attach(engine)
    engine.run(items)


def test_median_and_worst_of_each_modality(tmp_path, pages):
    items = [("US", 7, "a"), ("CT", 2, "b"), ("US", 9, "c"), ("US", 1, "d"), ("CT", 4, "e"), ("CT", 3, "f")]
    evaluate(tmp_path / "eval", items)
    (rows,) = pages
    assert [(m, median.name[0], worst.name[0]) for m, median, worst in rows] == [("CT", "f", "b"), ("US", "a", "d")]
    assert [example.dsc for example in rows[1][1:]] == pytest.approx([70, 10])
    assert (tmp_path / "eval" / "examples.png").is_file()


def test_worst_is_found_beyond_the_pictures_kept(tmp_path, pages):
    evaluate(tmp_path, [("US", 5, str(n)) for n in range(64)] + [("US", 9, "good"), ("US", 0, "bad"), ("US", 3, "x")])
    (((_, median, worst),),) = pages
    assert worst.name == "bad, z 0" and round(median.dsc) == 50


def test_page_shows_every_picture(tmp_path):
    green, blue = (np.broadcast_to(np.uint8(colour), (150, 300, 3)) for colour in ([0, 200, 0], [0, 0, 200]))
    page = draw_page([(m, Example(90, "a", green), Example(10, "b", blue)) for m in ("CT", "MR", "PET")])
    for picture in (green, blue):
        assert (page == picture[0, 0]).all(axis=-1).sum() == 3 * picture[:, :, 0].size


def test_nothing_evaluated_writes_nothing(tmp_path):
    engine = Engine(lambda *_: [])
    ExamplePage(output_dir=tmp_path).attach(engine)
    engine.run([[]])
    assert not list(tmp_path.iterdir())


def test_readable(tmp_path):
    evaluate(tmp_path, [("US", 5, "a")])
    assert Image.open(tmp_path / "examples.png").size == (2 * (600 + 18), 150 + 18 + 6)
