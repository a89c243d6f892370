import pytest

from custom import profile as profile_module
from custom.errors import InputError
from custom.profile import PLAIN, profile

PARTS = ["batch to device, CLIP", "image encoder", "prompt encoder", "mask decoder", "rest of forward", "loss"]
PARTS += ["backward", "optimizer"]


class SameProcess:
    """Stands in for the pool, whose new process would import everything again."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        self.result = lambda: function(*arguments)
        return self


@pytest.fixture(autouse=True)
def same_process(monkeypatch):
    monkeypatch.setattr(profile_module, "ProcessPoolExecutor", SameProcess)
    monkeypatch.setattr(profile_module, "_DATA_ALONE", 2)


@pytest.mark.slow
def test_one_plain_step(prepared_demo):
    options = {"clip": "none", "batch_size": 1, "num_workers": 0, "freeze_image_encoder": True, "content_cnn": False}
    found = profile(str(prepared_demo.root), steps=1, warm_up=1, **options, **PLAIN)
    assert list(found) == ["as configured"]
    (result,) = found.values()
    assert min(result.data, result.step, result.both, result.memory) > 0
    assert list(result.parts) == PARTS and all(ms >= 0 for ms in result.parts.values())
    assert result.parts["image encoder"] > result.parts["loss"]
    # A step is the sum of its parts; two measurements of a step differ, on a busy machine by much.
    assert 0.1 < 1e-3 * sum(result.parts.values()) * result.step < 10
    assert "step alone" in str(result) and "mask decoder" in str(result)


def test_plain_undoes_what_is_there():
    config = profile_module.ConfigParser()
    config.read_config(profile_module.CONFIGS / "train.json")
    assert all(key.split("#")[0] in config.get() for key in PLAIN)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: found 0; allowed: a whole number from 1"),
        ({"warm_up": "x"}, "warm_up: found 'x'"),
        ({"batchsize": 4}, "--batchsize: found a key that cannot be set here; allowed: batch_size"),
        ({"stpes": 4}, "--stpes: found a key that cannot be set here; allowed: steps"),
        ({}, "dataset.json: found no such file"),
    ],
)
def test_bad_arguments(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        profile(str(tmp_path), **options)
