import numpy as np
import pytest
from ignite.engine import Engine, Events
from skimage import io

from custom.handlers import TrainingCurve


@pytest.fixture
def engines():
    trainer, validator = Engine(lambda *_: None), Engine(lambda *_: None)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: validator.run([0]))

    @validator.on(Events.EPOCH_COMPLETED)
    def score(engine):
        engine.state.metrics = {"val_dsc": 50.0 + trainer.state.epoch, "val_nsd": 40.0}

    return trainer, validator


def attach(engines, path, **options):
    trainer, validator = engines
    log = lambda: {"loss": 1 / trainer.state.iteration, "bce": 0.5}  # noqa: E731
    TrainingCurve(path=path, validator=validator, log=log, **options).attach(trainer)
    return trainer


def test_points_and_picture(engines, tmp_path):
    trainer = attach(engines, tmp_path / "new" / "curve.png", interval=2)
    trainer.run(range(5), max_epochs=2)
    curve = trainer.state_dict()["curve"]
    assert curve["losses"] == [{"iteration": i, "loss": 1 / i, "bce": 0.5} for i in (2, 4, 6, 8, 10)]
    assert curve["scores"] == [[5, 51.0, 40.0], [10, 52.0, 40.0]]
    picture = io.imread(tmp_path / "new" / "curve.png")
    assert picture.shape[:2] == (400, 1000) and len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 50


def test_a_training_without_points_is_drawn(tmp_path):
    trainer = attach((Engine(lambda *_: None), Engine(lambda *_: None)), tmp_path / "curve.png")
    trainer.run(range(5))
    assert io.imread(tmp_path / "curve.png").shape[:2] == (400, 1000)


def test_a_long_training_keeps_fewer_points(engines, tmp_path, monkeypatch):
    monkeypatch.setattr("custom.handlers.training_curve._MOST_POINTS", 8)
    trainer = attach(engines, tmp_path / "curve.png", interval=1)
    trainer.run(range(30))
    assert [point["iteration"] for point in trainer.state.curve["losses"]] == [4, 8, 12, 16, 20, 24, 28]
