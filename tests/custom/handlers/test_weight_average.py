import copy

import pytest
import torch
from ignite.engine import Events
from torch import nn

from custom.checkpoints.files import read_checkpoint
from custom.errors import InputError
from custom.handlers import WeightAverage


def weights_of(run, **options):
    """Return the states of the network after each iteration of a training, the run ended."""
    states = []
    run.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda _: states.append(copy.deepcopy(run.network.state_dict()))
    )
    run.trainer.run()
    return states


@pytest.mark.parametrize(("accumulate", "steps"), [(1, range(15)), (3, (2, 4, 7, 9, 12, 14))])
def test_is_the_closed_form(start, tmp_path, accumulate, steps):
    decay = 0.8
    states = weights_of(start(tmp_path / "a", ema=decay, accumulate=accumulate))
    ema = read_checkpoint(tmp_path / "a" / "last.pt")["ema"]
    first, *others = [states[i] for i in steps]
    assert ema["n_averaged"] == len(steps)
    for name, value in first.items():
        expected = value.double() * decay ** len(others)
        for k, state in enumerate(reversed(others)):
            expected += (1 - decay) * decay**k * state[name].double()
        if not value.is_floating_point():
            expected = states[-1][name]
        torch.testing.assert_close(ema[f"module.{name}"].double(), expected.double(), rtol=0, atol=1e-6)


def test_is_what_is_validated_and_shipped(start, tmp_path):
    run = start(tmp_path / "a", ema=0.9, epochs=1)
    run.trainer.run()
    content, shipped = read_checkpoint(tmp_path / "a" / "last.pt"), torch.load(tmp_path / "a" / "model.pt")
    assert run.validator.network is not run.network
    assert all(torch.equal(shipped[name], content["ema"][f"module.{name}"]) for name in shipped)
    assert shipped.keys() == content["model"].keys()
    assert not torch.equal(shipped["0.weight"], content["model"]["0.weight"])


def test_does_not_change_the_training(start, tmp_path):
    off = weights_of(start(tmp_path / "off"))
    on = weights_of(start(tmp_path / "on", ema=0.9))
    for one, other in zip(off, on, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    contents = [read_checkpoint(tmp_path / name / "last.pt") for name in ("off", "on")]
    assert contents[1].keys() - contents[0].keys() == {"ema"}


def test_off_it_is_the_network_itself():
    network = nn.Linear(2, 2)
    average = WeightAverage(network=network, decay=None)
    assert average.network is network and average.saved == {}


def test_frozen_layers_stay_bit_for_bit():
    network = nn.Linear(5, 5)
    average = WeightAverage(network=network, decay=0.999)
    for _ in range(9):
        average.saved["ema"].update_parameters(network)
    assert torch.equal(average.network.weight, network.weight)


@pytest.mark.parametrize("iteration", [1, 4, 5, 6, 13])
def test_resumed_is_a_run_left_alone(start, tmp_path, iteration):
    class Killed(BaseException):
        pass

    def kill(_):
        raise Killed

    start(tmp_path / "alone", ema=0.9).trainer.run()
    run = start(tmp_path / "cut", ema=0.9)
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=iteration), kill)
    with pytest.raises(Killed):
        run.trainer.run()
    start(tmp_path / "cut", ema=0.9, resume=True).trainer.run()
    for file, part in (("last.pt", "ema"), ("last.pt", "model"), ("model.pt", None)):
        one, other = (torch.load(tmp_path / name / file) for name in ("alone", "cut"))
        one, other = (one, other) if part is None else (one[part], other[part])
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_resume_needs_the_average(start, tmp_path):
    start(tmp_path / "a", epochs=1).trainer.run()
    with pytest.raises(InputError, match="none that is whole"):
        start(tmp_path / "a", epochs=1, ema=0.9, resume=True).trainer.run()


@pytest.mark.parametrize("decay", [0, 1, -0.5, 2])
def test_wrong_decay(decay):
    with pytest.raises(InputError, match="ema"):
        WeightAverage(network=nn.Linear(1, 1), decay=decay)
