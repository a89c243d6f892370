import numpy as np
import torch
from ignite.engine import Engine

from custom.handlers import PredictionImages
from custom.handlers.prediction_images import prediction_picture


def output(modality="CT", size=(64, 128)):
    """A slice with a mask on the left that was predicted on the right."""
    label = torch.zeros(1, *size, dtype=torch.bool)
    label[:, 8:24, 8:24] = True
    pred = torch.full((1, 256, 256), -5.0)
    pred[:, 40:60, 200:230] = 5.0
    return {
        "image": torch.rand(3, 256, 256),
        "pred": pred,
        "result": {"modality": modality, "label": label},
    }


def test_picture():
    shown = prediction_picture(output(), torch.tensor([[14.0, 14.0, 50.0, 50.0]]))
    assert shown.shape == (256, 512, 3) and shown.dtype == np.uint8
    left, right = shown[:, :256], shown[:, 256:]
    outline = np.array([64, 255, 64])
    assert (left[40, 200:230] == outline).all() and not (right[40, 210:220] == outline).all(axis=-1).any()
    assert (right[16, 16:48] == outline).all()


class Writer:
    def __init__(self):
        self.calls = []

    def add_image(self, tag, picture, step, dataformats):
        self.calls.append((tag, picture.shape, step, dataformats))


def test_one_picture_a_modality_at_every_validation():
    batches = [["CT", "CT"], ["US"], ["CT"]]

    def step(engine, modalities):
        engine.state.batch = [{"boxes": torch.tensor([[14.0, 14.0, 50.0, 50.0]])} for _ in modalities]
        return [output(modality) for modality in modalities]

    engine, writer = Engine(step), Writer()
    PredictionImages(summary_writer=writer).attach(engine)
    engine.run(batches, max_epochs=2)
    shape = (256, 512, 3)
    assert writer.calls == [(f"prediction/{m}", shape, e, "HWC") for e in (1, 2) for m in ("CT", "US")]
