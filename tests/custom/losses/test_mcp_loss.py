from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from custom.errors import InputError
from custom.losses import MCPMedSAMLoss


class Output(NamedTuple):
    mask_logits: Tensor
    iou: Tensor
    modality_logits: Tensor | None = None
    sparse_content: Tensor | None = None
    dense_content: Tensor | None = None


def make(b=3, n=2, size=16, dtype=torch.float32):
    torch.manual_seed(0)
    output = Output(
        torch.randn(b, n, size, size, dtype=dtype, requires_grad=True),
        torch.rand(b, n, dtype=dtype, requires_grad=True),
        torch.randn(b * n, 11, dtype=dtype, requires_grad=True),
        torch.randn(b * n, 8, dtype=dtype, requires_grad=True),
        torch.randn(b * n, 8, dtype=dtype, requires_grad=True),
    )
    target = {"label": (torch.rand(b, n, size, size) > 0.6).float(), "modality": torch.tensor([3, -1, 7][:b])}
    return output, target


def array(x):
    return x.detach().double().numpy()


def cross_entropy(logits, rows):
    logits = logits - logits.max(1, keepdims=True)
    return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(logits)), rows]))


def test_equals_the_equations():
    output, target = make()
    loss = MCPMedSAMLoss()
    total = loss(output, target)
    x, m = array(output.mask_logits), target["label"].double().numpy()
    p = 1 / (1 + np.exp(-x))
    axes = (2, 3)
    hard = x > 0
    iou = (hard & (m > 0)).sum(axes) / (hard | (m > 0)).sum(axes)
    sparse, dense = (array(t) / np.linalg.norm(array(t), axis=1, keepdims=True) for t in output[3:])
    similarity = dense @ sparse.T
    expected = {
        "bce": -np.mean(m * np.log(p) + (1 - m) * np.log(1 - p)),
        "dice": np.mean(1 - 2 * (m * p).sum(axes) / ((m**2).sum(axes) + (p**2).sum(axes))),
        "iou": np.mean((iou - array(output.iou)) ** 2),
        # Rows 2 and 3 belong to the second image, whose modality is unknown.
        "modality": cross_entropy(array(output.modality_logits)[[0, 1, 4, 5]], [3, 3, 7, 7]),
        "contrastive": (cross_entropy(similarity, range(6)) + cross_entropy(similarity.T, range(6))) / 2,
    }
    weighted = sum(w * expected[k] for k, w in zip(expected, (1, 1, 1, 0.01, 0.01), strict=True))
    assert total.item() == pytest.approx(weighted, abs=1e-5)
    log = loss.log()
    assert log.pop("loss") == pytest.approx(total.item(), abs=1e-6)
    assert log == pytest.approx(expected, abs=1e-6)
    assert all(not term.requires_grad for term in loss.terms.values())


def test_weights():
    output, target = make()
    loss = MCPMedSAMLoss(mask=2, iou=3, modality=5, contrastive=7)
    total, t = loss(output, target).item(), loss.log()
    assert total == pytest.approx(
        2 * (t["bce"] + t["dice"]) + 3 * t["iou"] + 5 * t["modality"] + 7 * t["contrastive"], rel=1e-6
    )


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        (("modality_logits",), {"bce", "dice", "iou", "contrastive"}),
        (("sparse_content",), {"bce", "dice", "iou", "modality"}),
        (("dense_content",), {"bce", "dice", "iou", "modality"}),
        (("modality_logits", "sparse_content", "dense_content"), {"bce", "dice", "iou"}),
    ],
)
def test_absent_prompts_leave_their_terms_out(missing, left):
    output, target = make()
    loss = MCPMedSAMLoss()
    assert torch.isfinite(loss(output._replace(**dict.fromkeys(missing)), target))
    assert set(loss.terms) == left and set(loss.log()) == left | {"loss"}


def test_unknown_modality_only_gives_zero():
    output, target = make()
    target["modality"] = torch.full((3,), -1)
    loss = MCPMedSAMLoss()
    loss(output, target).backward()
    assert loss.log()["modality"] == 0
    assert not output.modality_logits.grad.any()


def test_gradients():
    output, target = make()
    loss = MCPMedSAMLoss(mask=0, iou=1, modality=0, contrastive=0)
    loss(output, target).backward()
    assert output.iou.grad.abs().min() > 0
    assert not output.mask_logits.grad.any()  # no gradient through the target IoU
    output, target = make()
    MCPMedSAMLoss()(output, target).backward()
    assert all(x.grad.isfinite().all() and x.grad.any() for x in output)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_perfect_prediction(value):
    label = torch.full((1, 1, 8, 8), value)
    loss = MCPMedSAMLoss()
    total = loss(Output((label - 0.5) * 200, torch.ones(1, 1)), {"label": label, "modality": torch.tensor([0])})
    assert total.item() == pytest.approx(0, abs=1e-5)


def test_float32_under_autocast():
    output, target = make(dtype=torch.bfloat16)
    plain = MCPMedSAMLoss()(Output(*(x.float() for x in output)), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = MCPMedSAMLoss()
        total = loss(output, {**target, "label": target["label"].bool()})
    assert total.dtype == torch.float32 and {t.dtype for t in loss.terms.values()} == {torch.float32}
    assert total.item() == pytest.approx(plain.item(), rel=1e-6)


def test_no_call_no_log():
    assert MCPMedSAMLoss().log() == {}


def test_wrong_label_shape():
    output, target = make()
    with pytest.raises(InputError, match="label shape"):
        MCPMedSAMLoss()(output, {**target, "label": target["label"][:, :1]})
