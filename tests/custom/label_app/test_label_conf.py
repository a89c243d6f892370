import os

import pytest

from custom.errors import InputError
from custom.label_app import conf as module
from custom.label_app.conf import Conf
from custom.label_app.weights import Weights


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"chekpoint": "a.pt"}, "unknown key"),
        ({"backend": "tf"}, "torch, openvino"),
        ({"embeddings": "0"}, "from 1 up"),
        ({"image_mb": "many"}, "from 1 up"),
        ({"upload_mb": "0"}, "from 1 up"),
        ({"labels": " , "}, "names such as"),
        ({"clicks": "box"}, "--conf: clicks: found 'box'.*points, corners"),
    ],
)
def test_what_cannot_be_used_is_refused(conf, message):
    with pytest.raises(InputError, match=message):
        Conf.parse(conf)


def test_values():
    conf = Conf.parse({"embeddings": "7", "labels": "liver, tumor", "server_mode": "true", "clicks": "corners"})
    assert conf.clicks == "corners" and Conf().clicks == "points"
    assert conf.embeddings == 7 and conf.names == ["liver", "tumor"]


def test_an_exported_network_cannot_be_trained(tmp_path):
    conf = Conf(model=str(tmp_path))
    assert not conf.trainable and Conf().trainable
    with pytest.raises(InputError, match="model: found no such file"):
        conf.network()


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """Weights whose models are named after their checkpoint."""

    class Named:
        def __init__(self, checkpoint):
            self.checkpoint, self.facts = checkpoint, {"digest": checkpoint}

    monkeypatch.setattr(module, "choose_model", lambda *, checkpoint, **_: Named(checkpoint))
    return Weights(Conf(checkpoint="base"), tmp_path)


def test_trained_weights_are_noticed(weights):
    base = weights.current()
    assert base.checkpoint == weights.checkpoint == "base" and weights.current() is base
    weights.folder.mkdir(parents=True)
    weights.trained.write_bytes(b"one")
    first = weights.current()
    assert first.checkpoint == weights.checkpoint == str(weights.trained) and weights.current() is first
    os.utime(weights.trained, (1, 1))
    assert weights.current() is not first
    weights.trained.unlink()
    assert weights.current() is base and weights.checkpoint == "base"
