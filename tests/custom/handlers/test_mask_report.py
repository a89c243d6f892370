import csv
import math
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from custom.handlers import MaskReport
from custom.modalities import MODALITIES
from custom.networks.mask_decoder import DecoderOutput


class Decoder(nn.Module):
    def forward(self, output):
        return output


def result(case, modality, z, shared):
    """Masks of 8 pixels, predictions of 8 that share k: IoU k / (16 - k)."""
    label, pred = torch.zeros(2, len(shared), 8, 8, dtype=torch.bool)
    label[:, 3] = True
    for mask, k in zip(pred, shared, strict=True):
        mask[3, :k] = True
        mask[7, k:] = True
    return {"result": {"case": case, "modality": modality, "slice": z, "pred": pred, "label": label}}


def evaluate(folder, steps, epochs=1):
    """Run steps of (batch, output, decoded); return the lines written and the network."""
    network = SimpleNamespace(mask_decoder=Decoder())

    def step(engine, given):
        engine.state.batch, output, decoded = given
        network.mask_decoder(decoded)
        return output

    engine = Engine(step)
    MaskReport(output_dir=folder, network=network).attach(engine)
    engine.run(steps, max_epochs=epochs)
    with (folder / "masks.csv").open(newline="") as file:
        return list(csv.DictReader(file)), network


def decoded(ious, modalities=None):
    logits = None
    if modalities is not None:
        logits = torch.zeros(len(ious), len(MODALITIES))
        for row, name in zip(logits, modalities, strict=True):
            row[MODALITIES.index(name)] = 3.0
    return DecoderOutput(torch.zeros(len(ious), 1, 1), torch.tensor(ious), logits)


@pytest.mark.parametrize("epochs", [1, 2])
def test_lines(tmp_path, epochs):
    steps = [
        # the images of a batch have the same number of masks
        (
            [{"label_ids": [7, 2]}, {"label_ids": [torch.tensor(1), torch.tensor(4)]}],
            [result("us_b", "US", 0, [8, 4]), result("us_a", "US", 3, [0, 2])],
            decoded([0.5, 0.25, 1.125, -0.5], ["US", "CT", "US", "MR"]),
        ),
        ([{"label_ids": [1]}], [result("ct", "CT", 5, [4])], decoded([0.75], ["CT"])),
    ]
    lines, network = evaluate(tmp_path, steps, epochs)
    places = [(line["case"], line["modality"], line["slice"], line["label"]) for line in lines]
    assert places == [
        ("ct", "CT", "5", "1"),
        ("us_a", "US", "3", "1"),
        ("us_a", "US", "3", "4"),
        ("us_b", "US", "0", "2"),
        ("us_b", "US", "0", "7"),
    ]
    assert {line["extent"] for line in lines} == {"1.000000"}
    assert [float(line["predicted_iou"]) for line in lines] == [0.75, 1.125, -0.5, 0.25, 0.5]
    assert [float(line["true_iou"]) for line in lines] == pytest.approx([1 / 3, 0, 1 / 7, 1 / 3, 1], abs=1e-6)
    assert [line["predicted_modality"] for line in lines] == ["CT", "US", "MR", "CT", "US"]
    probability = math.exp(3) / (math.exp(3) + len(MODALITIES) - 1)
    assert [float(line["probability"]) for line in lines] == pytest.approx([probability] * 5, abs=1e-6)
    assert not network.mask_decoder._forward_hooks


def test_without_a_classifier(tmp_path):
    ((line,), _) = evaluate(tmp_path, [([{"label_ids": [1]}], [result("a", "CT", 0, [8])], decoded([1.0]))])
    assert line["predicted_modality"] == line["probability"] == ""


def test_extent_is_the_longer_side_of_the_tight_box(tmp_path):
    label = torch.zeros(2, 20, 40, dtype=torch.bool)
    label[0, 3:13, 5] = label[0, 7, 4:8] = True  # 4 x 10
    label[1, 19, 39] = True
    given = {"case": "a", "modality": "CT", "slice": 0, "pred": label, "label": label}
    lines, _ = evaluate(tmp_path, [([{"label_ids": [1, 2]}], [{"result": given}], decoded([1.0, 1.0]))])
    assert [line["extent"] for line in lines] == ["0.250000", "0.025000"]
