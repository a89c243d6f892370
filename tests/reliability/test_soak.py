import mmap
import threading
from pathlib import Path

import pytest

from custom.errors import InputError
from tests.reliability.soak import SLOPE_LIMIT, soak, ways
from tests.reliability.stand_in import stand_in_model

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux shows the memory of a process")
ERRORS = (InputError, FileNotFoundError)


@pytest.mark.parametrize(("way", "requests"), [("command line", 150), ("server", 600)])  # the server is quicker
def test_nothing_is_kept(tmp_path, way, requests):
    answer = ways(stand_in_model(), tmp_path / "results")[way]
    kept = soak(answer, requests, tmp_path / "requests", bad_errors=ERRORS)
    assert kept.refused == requests // 7
    assert kept.files[1] <= kept.files[0] and kept.threads[1] <= kept.threads[0]
    assert kept.slope < 30  # a rough limit for few requests; the long part allows 1


def test_what_is_kept_is_found(tmp_path):
    kept_by_it, stop = [], threading.Event()

    def answer(*_):
        memory = mmap.mmap(-1, 200_000)  # a separate block: the allocator may have free memory from earlier
        memory.write(b"x" * 200_000)
        kept_by_it.append((memory, open(__file__)))
        threading.Thread(target=stop.wait, daemon=True).start()

    kept = soak(answer, 40, tmp_path / "requests", bad_errors=ERRORS)
    stop.set()
    assert kept.slope > 150 > SLOPE_LIMIT and len(list(kept.problems())) == 3
    for _, file in kept_by_it:
        file.close()


@pytest.mark.parametrize(("every", "found"), [(1, True), (10, True), (12, True), (40, False)])
def test_steps_are_found_unless_there_is_only_one(tmp_path, every, found):
    """40 requests, of which the last 32 count: a step of 5 MB every few requests."""
    kept_by_it, asked = [], []

    def answer(*_):
        asked.append(None)
        if len(asked) % every == every // 2:
            memory = mmap.mmap(-1, 5_000_000)
            memory.write(b"x" * 5_000_000)
            kept_by_it.append(memory)

    kept = soak(answer, 40, tmp_path / "requests", bad_errors=ERRORS)
    assert (kept.slope > SLOPE_LIMIT) == found
    assert kept.grown > 4


def test_mapped_files_that_are_kept_are_found(tmp_path):
    """Closed, but still mapped, as an array of a file may be."""
    kept_by_it = []

    def answer(*_):
        with open(__file__, "rb") as file:
            kept_by_it.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    kept = soak(answer, 40, tmp_path / "requests", bad_errors=ERRORS)
    assert kept.files[1] >= kept.files[0] + 30
