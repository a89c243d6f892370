import os
import signal
import time

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader

from custom.engines import config_text, ignore_stop_signals


class Pids(torch.utils.data.Dataset):
    def __len__(self):
        return 60

    def __getitem__(self, _):
        return os.getpid()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_outlive_a_signal_to_all_and_end_with_the_loader(number):
    loader = DataLoader(Pids(), num_workers=1, worker_init_fn=ignore_stop_signals)
    items = iter(loader)
    pid = int(next(items))
    sender = os.fork()
    if not sender:  # a signal that is not from the parent
        os.kill(pid, number)
        os._exit(0)
    os.waitpid(sender, 0)
    time.sleep(0.2)
    assert [int(item) for item in items] == [pid] * 59
    del items
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
def test_parent_ends_a_worker(context):
    """As multiprocessing does when the program ends."""
    loader = DataLoader(Pids(), num_workers=1, multiprocessing_context=context, worker_init_fn=ignore_stop_signals)
    items = iter(loader)
    next(items)
    (worker,) = items._workers
    worker.terminate()
    worker.join(20)
    assert worker.exitcode in ((0,) if context == "fork" else (0, -signal.SIGTERM))  # None: it waits for ever


def test_config_text():
    parser = ConfigParser({"lr": 1, "text": {"_target_": "custom.engines.config_text"}, "twice": "$2 * @lr"})
    parser["lr"] = 3  # as from the command line
    assert parser.get_parsed_content("text") == (
        '{"lr": 3, "text": {"_target_": "custom.engines.config_text"}, "twice": "$2 * @lr"}'
    )
    assert config_text() == "{}"
