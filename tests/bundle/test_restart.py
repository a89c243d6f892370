"""The bundle's training ends the same if it is killed, stopped or spread over processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from ignite.engine import Events

from data_prep.pipeline import prepare
from data_prep.readers.demo import DemoReader

BUNDLE = Path(__file__).parents[2] / "bundle"
SWITCHES = {"clip": "none", "modality_embedding": False, "content_cnn": False, "freeze_image_encoder": True}
SHORT = {"num_workers": 0, "val_slices": 1, "val_masks": 1, "log_interval": 1}


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Options of a training on two cases whose pictures are encoded once for all tests."""
    folder = tmp_path_factory.mktemp("set")
    prepare(DemoReader(), folder, progress=False)
    index = json.loads((folder / "dataset.json").read_text())
    for split in ("training", "validation"):
        cases = index[split]
        index[split] = [next(case for case in cases if case["modality"] == name) for name in ("US", "CT")]
    (folder / "dataset.json").write_text(json.dumps(index))
    cache = tmp_path_factory.mktemp("embeddings")
    return {"dataset_dir": str(folder), "embedding_cache": str(cache), **SWITCHES, **SHORT}


@pytest.fixture(scope="module")
def processes():
    """A context whose processes start with everything imported, so that a training starts in a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["custom.handlers", "custom.engines", "custom.networks", "monai.bundle"])
    return context


def train(folder, options, iteration=None, seconds=None):
    """Train in this process; kill it at the end of an iteration or some seconds after the start."""
    import monai.bundle

    torch.set_num_threads(1)
    workflow = monai.bundle.create_workflow(
        config_file=str(BUNDLE / "configs" / "train.json"),
        workflow_type="train",
        ckpt_dir=str(folder),
        output_dir=str(folder / "eval"),
        **options,
    )

    def kill(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    if iteration is not None:
        workflow.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=iteration), kill)
    if seconds is not None:
        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        workflow.trainer.add_event_handler(Events.STARTED, lambda _: timer.start())
    start = time.monotonic()
    workflow.run()
    (folder / "seconds").write_text(str(time.monotonic() - start))


def run_process(processes, folder, options, **kill):
    """Return the exit code of a training in its own process: 0, or minus the signal."""
    process = processes.Process(target=train, args=(folder, options), kwargs=kill)
    process.start()
    process.join()
    return process.exitcode


def assert_same_weights(folder, reference, tolerance=0.0):
    first, second = (torch.load(f / "last.pt", weights_only=True)["model"] for f in (folder, reference))
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=tolerance, msg=name)


@pytest.fixture(scope="module")
def reference(processes, options, tmp_path_factory):
    """An uninterrupted run: 2 epochs of 4 iterations."""
    folder = tmp_path_factory.mktemp("reference")
    settings = {"epochs": 2, "epoch_length": 4, "batch_size": 1, "save_interval": 1}
    assert run_process(processes, folder, options | settings) == 0
    return folder, options | settings


@pytest.mark.parametrize("iteration", [2, 4, 7])
def test_killed_and_resumed(processes, reference, tmp_path, iteration):
    expected, settings = reference
    assert run_process(processes, tmp_path, settings, iteration=iteration) == -signal.SIGKILL
    assert run_process(processes, tmp_path, settings | {"resume": True}) == 0
    assert_same_weights(tmp_path, expected)
    assert (tmp_path / "eval" / "cases.csv").read_text() == (expected / "eval" / "cases.csv").read_text()


@pytest.mark.slow
def test_killed_at_twenty_moments(processes, reference, tmp_path):
    """At random moments: in a step, while saving, while validating."""
    expected, settings = reference
    assert run_process(processes, tmp_path, settings) == 0  # again, now that the pictures are encoded
    assert_same_weights(tmp_path, expected)
    duration, draw = float((tmp_path / "seconds").read_text()), random.Random(0)
    saved = []
    while len(saved) < 20:
        folder = tmp_path / str(len(saved))
        if run_process(processes, folder, settings, seconds=draw.uniform(0, duration)) == 0:
            continue  # it was faster this time
        last = folder / "last.pt"
        saved.append(torch.load(last, weights_only=True)["trainer"]["iteration"] if last.is_file() else 0)
        assert run_process(processes, folder, settings | {"resume": True}) == 0
        assert_same_weights(folder, expected)
        shutil.rmtree(folder)
    print("iteration saved before each kill:", saved)
    assert len(set(saved)) > 4


def start_program(folder, options, *configs, launcher=()):
    """Start a training as its users do, in a process group of its own."""
    arguments = ["--config_file", str([f"configs/{name}.json" for name in ("train", *configs)])]
    for key, value in {"ckpt_dir": folder, "output_dir": folder / "eval", **options}.items():
        arguments += [f"--{key}", str(value)]
    line = [sys.executable, *launcher, "-m", "monai.bundle", "run", "training", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(line, cwd=BUNDLE, env=environment, start_new_session=True, **pipes)


@pytest.mark.slow
def test_stopped_by_a_scheduler(reference, tmp_path):
    """SIGTERM to every process of the job, data workers too, ends the step, saves, and ends with its code."""
    expected, settings = reference
    program = start_program(tmp_path, settings | {"save_interval": 100, "num_workers": 1})
    lines = []
    for line in program.stdout:
        lines.append(line)
        if "Iter: 2/4" in line:
            os.killpg(program.pid, signal.SIGTERM)
            break
    lines += program.stdout.readlines()
    assert program.wait() == 128 + signal.SIGTERM, "".join(lines)
    assert "Traceback" not in "".join(lines)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["trainer"]["iteration"] in (2, 3)
    program = start_program(tmp_path, settings | {"resume": True})
    output, _ = program.communicate()
    assert program.returncode == 0, output
    assert_same_weights(tmp_path, expected)


@pytest.mark.slow
def test_two_processes_are_one_with_the_double_batch(options, tmp_path):
    pair = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    # Adam turns a gradient of mere rounding into a whole step unless its epsilon prevents it.
    settings = options | {"epochs": 1, "epoch_length": 40, "device": "cpu", "optimizer#eps": 1e-5}
    runs = {
        "one": start_program(tmp_path / "one", settings | {"batch_size": 2}),
        "two": start_program(tmp_path / "two", settings | {"batch_size": 1}, "multi_gpu_train", launcher=pair),
        "accumulated": start_program(tmp_path / "accumulated", settings | {"batch_size": 1, "accumulate": 2}),
    }
    for program in runs.values():
        output, _ = program.communicate()
        assert program.returncode == 0, output
    curves = {name: torch.load(tmp_path / name / "last.pt", weights_only=True)["trainer"]["curve"] for name in runs}
    assert len(curves["one"]["losses"]) == len(curves["two"]["losses"]) == 20
    for one, two in zip(curves["one"]["losses"], curves["two"]["losses"], strict=True):
        assert one == pytest.approx(two, abs=1e-5)
    assert curves["one"]["scores"][0] == pytest.approx(curves["two"]["scores"][0], abs=1e-3)
    assert_same_weights(tmp_path / "two", tmp_path / "one", tolerance=1e-5)
    assert_same_weights(tmp_path / "accumulated", tmp_path / "one", tolerance=1e-6)
    assert len(list((tmp_path / "two" / "eval").glob("events*"))) == 1
