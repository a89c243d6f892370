import os
import random
import signal

import pytest
import torch
from ignite.engine import Events
from monai.engines import IterationEvents

from custom.checkpoints.files import read_checkpoint, write_checkpoint
from custom.data.prepared import INDEX_NAME
from custom.errors import InputError


class Killed(BaseException):
    """Ends a run at once, as a kill does."""


def kill(*_):
    raise Killed


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def tail(folder):
    """The results of a training, except those of which a resumed one may have more."""
    content = read_checkpoint(folder / "last.pt")
    return content["model"], content["optimizer"]["state"], content["trainer"], content["validator"], content["random"]


def assert_same_end(folder, reference):
    (model, adam, trainer, best, rng), (model0, adam0, trainer0, best0, rng0) = tail(folder), tail(reference)
    assert same(model, model0) and trainer == trainer0 and best == best0
    assert all(same(adam[i], adam0[i]) for i in adam0)
    assert rng[0]["python"] == rng0[0]["python"] and torch.equal(rng[0]["torch"], rng0[0]["torch"])
    assert same(torch.load(folder / "model.pt"), torch.load(reference / "model.pt"))
    assert not list(folder.glob(".*"))


@pytest.fixture
def reference(start, tmp_path):
    """The folder of an uninterrupted run: 3 epochs of 5 iterations."""
    folder = tmp_path / "reference"
    start(folder).trainer.run()
    return folder


PLACES = [
    ("trainer", Events.STARTED, 1),
    ("trainer", Events.ITERATION_STARTED, 3),
    ("trainer", IterationEvents.FORWARD_COMPLETED, 4),  # dropout has drawn
    ("trainer", IterationEvents.BACKWARD_COMPLETED, 5),
    ("trainer", IterationEvents.MODEL_COMPLETED, 8),
    ("trainer", Events.ITERATION_COMPLETED, 6),
    ("trainer", Events.ITERATION_COMPLETED, 10),  # saved, not validated
    ("trainer", Events.EPOCH_COMPLETED, 2),
    ("validator", Events.ITERATION_COMPLETED, 6),
    ("validator", Events.EPOCH_COMPLETED, 2),  # best weights written, not saved
    ("trainer", Events.COMPLETED, 1),
]


def killed_at(run, engine, event, count):
    """Run until an event has come a number of times."""
    left = [count]

    def count_down(*_):
        left[0] -= 1
        if not left[0]:
            raise Killed

    getattr(run, engine).add_event_handler(event, count_down)
    with pytest.raises(Killed):
        run.trainer.run()


@pytest.mark.parametrize(("engine", "event", "count"), PLACES)
def test_killed_and_resumed_is_a_run_left_alone(start, reference, tmp_path, engine, event, count):
    folder = tmp_path / "killed"
    killed_at(start(folder), engine, event, count)
    start(folder, resume=True).trainer.run()
    assert_same_end(folder, reference)


def test_killed_again_and_again(start, reference, tmp_path):
    """Twenty kills at random places, mostly after little progress."""
    folder, draw = tmp_path / "killed", random.Random(1)
    kills = 0
    while kills < 20:
        engine, event, _ = draw.choice(PLACES[1:-1])
        try:
            killed_at(start(folder, resume=True), engine, event, draw.randint(1, 4))
            kills += 1
        except pytest.fail.Exception:  # it reached the end
            (folder / "last.pt").unlink()
            (folder / "previous.pt").unlink()
    start(folder, resume=True).trainer.run()
    assert_same_end(folder, reference)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("at", [2, 3, 4, 5])
def test_killed_while_writing(start, reference, tmp_path, monkeypatch, call, at):
    folder, real, left = tmp_path / "killed", getattr(os, call), [at]

    def broken(*args):
        left[0] -= 1
        if not left[0]:
            raise Killed
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, broken)
        with pytest.raises(Killed):
            start(folder).trainer.run()
    (folder / ".last.pt.7.partial").write_bytes(b"PK")  # a kill leaves its temporary file
    start(folder, resume=True).trainer.run()
    assert_same_end(folder, reference)


def test_disk_full_while_saving(start, reference, tmp_path, monkeypatch):
    folder, real, left = tmp_path / "full", os.fsync, [4]

    def full(number):
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(28, "No space left on device")
        real(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            start(folder).trainer.run()
    assert not list(folder.glob(".*")) and read_checkpoint(folder / "last.pt")["trainer"]["iteration"] > 0
    start(folder, resume=True).trainer.run()
    assert_same_end(folder, reference)


@pytest.mark.parametrize("damage", ["cut", "zeros", "empty", "other"])
def test_damaged_checkpoint_is_passed_over(start, reference, tmp_path, damage, caplog):
    folder = tmp_path / "killed"
    killed_at(start(folder), "trainer", Events.ITERATION_STARTED, 8)
    last = folder / "last.pt"
    content = bytearray(last.read_bytes())
    if damage == "other":
        write_checkpoint(last, {"model": {}})
    else:
        middle = len(content) // 2
        if damage == "zeros":  # lost by a power cut; its length is right
            place = content.index(read_checkpoint(last)["model"]["0.weight"].numpy().tobytes())
            content[place : place + 64] = bytes(64)
        last.write_bytes({"cut": content[:middle], "empty": b"", "zeros": content}[damage])
    start(folder, resume=True).trainer.run()
    assert "last.pt" in caplog.text and "it is not used" in caplog.text
    assert_same_end(folder, reference)


def test_nothing_whole_left(start, tmp_path):
    folder = tmp_path / "killed"
    killed_at(start(folder), "trainer", Events.ITERATION_STARTED, 8)
    for name in ("last.pt", "previous.pt"):
        (folder / name).write_bytes(b"PK")
    with pytest.raises(InputError, match="none that is whole"):
        start(folder, resume=True).trainer.run()


def test_resume_without_a_checkpoint_starts(start, reference, tmp_path):
    start(tmp_path / "new", resume=True).trainer.run()
    assert_same_end(tmp_path / "new", reference)


def test_resume_of_a_finished_training_changes_nothing(start, reference):
    before = (reference / "last.pt").read_bytes()
    start(reference, resume=True).trainer.run()
    assert (reference / "last.pt").read_bytes() == before


def test_resume_for_more_epochs(start, reference, tmp_path):
    run = start(reference, resume=True, epochs=4)
    run.trainer.run()
    assert run.trainer.state.iteration == 20 and run.trainer.state.epoch == 4


def test_content(start, reference, tmp_path):
    content = read_checkpoint(reference / "last.pt")
    assert content["trainer"]["iteration"] == 15 and content["epoch_done"] and content["config"] == '{"lr": 0.05}'
    assert {p.name for p in reference.iterdir()} == {"last.pt", "previous.pt", "model.pt"}
    assert read_checkpoint(reference / "previous.pt")["trainer"]["iteration"] == 14


def test_a_new_training_leaves_nothing_of_the_old_one(start, reference):
    killed_at(start(reference, interval=3), "trainer", Events.ITERATION_STARTED, 4)
    assert not (reference / "previous.pt").exists()
    assert read_checkpoint(reference / "last.pt")["trainer"]["iteration"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 5}, "iterations of an epoch: found 5; allowed: 2"),
        ({"epochs": 2}, "other settings"),
        ({"dataset": "other"}, "another data set"),
    ],
)
def test_what_cannot_be_resumed(start, reference, tmp_path, options, message):
    if "dataset" in options:
        options = {"dataset": tmp_path / "other"}
        options["dataset"].mkdir()
        (options["dataset"] / INDEX_NAME).write_text("[]")
    with pytest.raises(InputError, match=message):
        start(reference, resume=True, **options).trainer.run()


@pytest.mark.parametrize("engine", ["trainer", "validator"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal(start, reference, tmp_path, engine, number):
    folder, handler = tmp_path / "stopped", signal.getsignal(number)
    run = start(folder, interval=100)
    getattr(run, engine).add_event_handler(Events.ITERATION_STARTED(once=3), lambda _: os.kill(os.getpid(), number))
    run.trainer.run()
    assert run.trainer.state.stopped_by == number and signal.getsignal(number) is handler
    saved = read_checkpoint(folder / "last.pt")
    assert saved["trainer"]["iteration"] == (3 if engine == "trainer" else 5) and not saved["epoch_done"]
    resumed = start(folder, resume=True)
    resumed.trainer.run()
    assert resumed.trainer.state.stopped_by is None
    assert_same_end(folder, reference)


def test_accumulated_gradients_are_never_cut(start, tmp_path):
    options = {"accumulate": 3, "length": 16}  # 8 iterations an epoch: two groups of three and one of two
    start(tmp_path / "alone", **options).trainer.run()
    for count in range(2, 23, 3):
        folder = tmp_path / str(count)
        run = start(folder, interval=1, **options)
        if count % 2:
            killed_at(run, "trainer", Events.ITERATION_STARTED, count)
        else:
            run.trainer.add_event_handler(Events.ITERATION_STARTED(once=count), lambda _: os.kill(os.getpid(), 15))
            run.trainer.run()
        assert read_checkpoint(folder / "last.pt")["trainer"]["iteration"] % 8 in (0, 3, 6)
        start(folder, resume=True, **options).trainer.run()
        assert_same_end(folder, tmp_path / "alone")


def test_early_stop_and_its_memory(start, tmp_path):
    whole = start(tmp_path / "whole", epochs=40, patience=2)
    whole.trainer.run()
    epoch = whole.trainer.state.epoch
    assert 3 <= epoch < 40
    killed_at(start(tmp_path / "cut", epochs=40, patience=2), "trainer", Events.EPOCH_STARTED, epoch)
    for _ in range(2):  # once more: a stopped training stays stopped
        run = start(tmp_path / "cut", epochs=40, patience=2, resume=True)
        run.trainer.run()
        assert run.trainer.state.iteration == whole.trainer.state.iteration
    assert_same_end(tmp_path / "cut", tmp_path / "whole")


def test_output_of_a_step(start, tmp_path):
    run = start(tmp_path / "a", epochs=1)
    run.trainer.run()
    (output,) = run.trainer.state.output
    assert output.keys() == {"loss"} and output["loss"].ndim == 0 and not output["loss"].requires_grad


@pytest.mark.parametrize("patience", [0, -1])
def test_wrong_patience(start, tmp_path, patience):
    with pytest.raises(InputError, match="patience"):
        start(tmp_path, patience=patience)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_no_number(start, tmp_path, value, caplog):
    run = start(tmp_path / "a")
    names = {}

    def spoil(trainer):
        names.update({trainer.state.iteration: trainer.state.batch["case"]})
        if trainer.state.iteration == 7:
            trainer.state.batch["label"][1] = value

    run.trainer.add_event_handler(Events.ITERATION_STARTED, spoil)
    with pytest.raises(InputError) as error:
        run.trainer.run()
    first, second = names[7]
    assert f"iteration 7: loss of {first} slice 3, {second} slice 3: found {value}" in str(error.value)
    saved = read_checkpoint(tmp_path / "a" / "last.pt")
    assert saved["trainer"]["iteration"] == 5
    assert all(value.isfinite().all() for value in saved["model"].values())
    assert "Traceback" not in caplog.text


def test_weights_that_are_no_numbers_are_not_saved(start, tmp_path):
    run = start(tmp_path / "a", interval=1)

    def spoil(trainer):
        if trainer.state.iteration == 8:
            run.network[0].weight.grad[0, 0] = float("nan")

    run.trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, spoil)
    with pytest.raises(InputError, match="iteration 8: weights after case.* slice 3, case"):
        run.trainer.run()
    assert read_checkpoint(tmp_path / "a" / "last.pt")["trainer"]["iteration"] == 7
