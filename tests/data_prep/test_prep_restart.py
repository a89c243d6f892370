"""A second run does only what is missing or has changed, and a killed run is continued."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from custom.data.prepared import load_dataset
from custom.errors import InputError
from data_prep import journal, pipeline
from data_prep.readers.manifest import ManifestReader
from data_prep.readers.npz import NpzReader
from data_prep.writer import Outcome, PrepareOptions

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
RNG = np.random.default_rng(0)
ONLY_POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and forks")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def source(tmp_path):
    """Return a folder with six cases: one of them without foreground, one with a mask that is too small."""
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(6):
        label = np.zeros((16, 16), np.uint8)
        label[2 : (2, 3, 12)[min(n, 2)], 2:14] = 1
        label[13:, 13:] = n > 1  # 9 px: whether it stays depends on the options
        np.savez(folder / f"2D_US_Set_{n}.npz", imgs=RNG.integers(0, 256, (16, 16), np.uint8), gts=label)
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def prepare(monkeypatch, source, out):
    """Return a function that prepares the folder and returns its report and the cases that were loaded."""

    def run(reader=None, folder=out, **options):
        loaded = []
        real = pipeline.prepare_case
        monkeypatch.setattr(pipeline, "prepare_case", lambda s, **rest: loaded.append(s.name) or real(s, **rest))
        report = pipeline.prepare(
            reader or NpzReader(source), folder, options=PrepareOptions(**options), progress=False
        )
        monkeypatch.setattr(pipeline, "prepare_case", real)
        return report, sorted(int(name[-1]) for name in loaded)

    return run


def test_a_second_run_does_nothing_but_try_refused_cases_again(prepare, out):
    first, loaded = prepare()
    assert loaded == [0, 1, 2, 3, 4, 5] and (len(first.skipped), len(first.left_out), first.reused) == (1, 1, 0)
    before = contents(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    second, loaded = prepare()
    assert loaded == [0] and second.reused == 4
    assert (second.training, second.validation) == (first.training, first.validation)
    assert (second.skipped, second.left_out) == (first.skipped, first.left_out)
    assert contents(out) == before and {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")} == times


@pytest.mark.parametrize(
    ("damage", "redone"),
    [
        (lambda out: (out / "arrays" / "2D_US_Set_3.label.npy").unlink(), [0, 3]),
        (lambda out: os.truncate(out / "arrays" / "2D_US_Set_4.image.npy", 200), [0, 4]),
        (lambda out: (out / "dataset.json").unlink(), [0, 2, 3, 4, 5]),
        (lambda out: (out / "report.json").unlink(), [0, 1]),
        (lambda out: (out / "report.json").write_text("[3"), [0, 1]),
        (lambda out: (out / "journal.jsonl").write_bytes(b'{"case": "2D_US_S'), [0]),
        (lambda out: (out / "journal.jsonl").write_bytes(b'3\n{"x": 1}\n\xff\n'), [0]),
        (lambda out: (out / "arrays" / ".2D_US_Set_3.label.npy.77.partial").write_text("half"), [0]),
        (lambda out: (out / ".dataset.json.77.partial").write_text("half"), [0]),
        (lambda out: (out / "arrays" / "old.image.npy").write_text(""), [0]),
    ],
)
def test_damage_is_repaired(prepare, out, damage, redone):
    prepare()
    before = contents(out)
    damage(out)
    assert prepare()[1] == redone
    assert contents(out) == before


def test_a_half_written_line_does_not_swallow_the_next(prepare, source, out):
    prepare()
    (out / "journal.jsonl").write_bytes(b'{"case": "half')
    with journal.Journal(out) as first:
        first.add(Outcome("whole", problem="too small", fingerprint="77"))
    with journal.Journal(out) as second:
        assert second.reusable("whole", "77").problem == "too small"
        assert second.reusable("whole", "78") is None


def test_files_of_other_names_are_left_alone(prepare, out):
    prepare()
    (out / "arrays" / "notes.txt").write_text("mine")
    (out / "clip.pt").write_text("mine")
    prepare()
    assert (out / "arrays" / "notes.txt").exists() and (out / "clip.pt").exists()


def test_only_what_changed_is_prepared_again(prepare, source, out):
    prepare()
    path = source / "2D_US_Set_2.npz"
    np.savez(path, imgs=np.zeros((16, 16), np.uint8), gts=np.ones((16, 16), np.uint8))
    assert prepare()[1] == [0, 2]
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert prepare()[1] == [0, 2]
    path.unlink()
    shutil.copy(source / "2D_US_Set_3.npz", source / "2D_US_Set_9.npz")
    report, loaded = prepare()
    assert loaded == [0, 9]
    assert {r["case"][-1] for r in report.training + report.validation} == set("3459")
    assert not list((out / "arrays").glob("2D_US_Set_2.*"))
    shutil.rmtree(source)
    source.mkdir()
    with pytest.raises(InputError):
        prepare()
    assert [*load_dataset(out).training, *load_dataset(out).validation]  # no file was touched


@pytest.mark.parametrize("options", [{"min_size": 7}, {"components": False}, {"max_masks": 3}, {"suv_max": 5.0}])
def test_other_options_prepare_everything_again(prepare, options):
    prepare()
    assert prepare(**options)[1] == [0, 1, 2, 3, 4, 5]


def test_another_version_or_reader_prepares_everything_again(prepare, source, out, monkeypatch):
    prepare()
    monkeypatch.setattr(journal, "PREP_VERSION", -1)
    assert prepare()[1] == [0, 1, 2, 3, 4, 5]
    reader = NpzReader(source)
    reader.name = "other"
    assert prepare(reader)[1] == [0, 1, 2, 3, 4, 5]


def test_a_new_line_in_a_manifest_is_one_new_case(manifest, square, out):
    root, add = manifest
    for case in "ab":
        add(case, RNG.integers(0, 256, square.shape, np.uint8), square)

    def reused():
        return pipeline.prepare(ManifestReader(root), out, progress=False).reused

    assert reused() == 0
    add("c", RNG.integers(0, 256, square.shape, np.uint8), square)
    lines = (root / "US" / "manifest.jsonl").read_text().splitlines(keepends=True)
    (root / "US" / "manifest.jsonl").write_text("".join(lines[::-1]))  # new line first, the others elsewhere
    assert reused() == 2
    (root / "US" / "b.label.png").write_bytes((root / "US" / "a.label.png").read_bytes())
    assert reused() == 2


def test_sources_may_be_read_only(prepare, source, out):
    for path in (*source.iterdir(), source):
        path.chmod(0o555 if path.is_dir() else 0o444)
    prepare()
    before = contents(out)
    prepare()
    assert contents(out) == before


def test_one_run_at_a_time(prepare, out):
    prepare()
    before = contents(out)
    with journal.Journal(out), pytest.raises(InputError, match="another run"):
        prepare()
    (out / "journal.jsonl").unlink()
    assert contents(out) == before


def test_workers_do_not_change_the_result(source, tmp_path):
    for workers in (1, 3):
        pipeline.prepare(NpzReader(source), tmp_path / str(workers), workers=workers, progress=False)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


# The child kills itself right before its n-th change of the output folder, and prints how many there were.
CHILD = """
import os, signal, sys
from data_prep.pipeline import prepare
from data_prep.readers.npz import NpzReader
from data_prep.writer import PrepareOptions

source, out, *runs = sys.argv[1:]
for run in runs:
    target, min_size, stop = run.split(",")
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        print(status)
        continue
    count = 0
    def hook(event, arguments):
        global count
        writes = event == "open" and isinstance(arguments[1], str) and arguments[1][0] in "wa"
        if (writes or event in ("os.rename", "os.remove")) and out in str(arguments[0]):
            count += 1
            if count == int(stop):
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    options = PrepareOptions(min_size=int(min_size))
    prepare(NpzReader(source), os.path.join(out, target), options=options, progress=False)
    os._exit(0)
"""


@ONLY_POSIX
@pytest.mark.parametrize("stops", [range(1, 32, 4), pytest.param(range(1, 40), marks=pytest.mark.slow)])
def test_killed_before_any_single_change(source, tmp_path, stops):
    """Killed at its n-th change and again a few changes later; also while another set of options is at work."""
    out = tmp_path / "out"
    for name, min_size in (("a", 16), ("b", 7)):
        pipeline.prepare(NpzReader(source), out / name, options=PrepareOptions(min_size=min_size), progress=False)
    wanted, other = contents(out / "a"), contents(out / "b")
    assert wanted != other and wanted.keys() < other.keys()
    runs = []
    for n in stops:
        shutil.copytree(out / "a", out / f"back{n}")
        shutil.copytree(out / "a", out / f"on{n}")
        runs += [f"fresh{n},16,{n}", f"fresh{n},16,{1 + n % 5}", f"fresh{n},16,0"]
        runs += [f"back{n},7,{n}", f"back{n},16,0", f"on{n},7,{n}", f"on{n},7,0"]
        runs += [f"mixed{n},16,22", f"mixed{n},7,{n}", f"mixed{n},16,0", f"stopped{n},7,{n}"]
        shutil.copytree(out / "a", out / f"stopped{n}")
    command = [sys.executable, "-c", CHILD, str(source), str(out), *runs]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and not run.stderr
    ended = dict.fromkeys((0, signal.SIGKILL), 0)
    for status in map(int, run.stdout.split()):
        ended[status] += 1
    assert ended[signal.SIGKILL] > 2 * len(stops) and ended[0]
    for n in stops:
        for name, expected in (("fresh", wanted), ("back", wanted), ("mixed", wanted), ("on", other)):
            assert contents(out / f"{name}{n}") == expected, (name, n)
        stopped = contents(out / f"stopped{n}")
        index = stopped.get(Path("dataset.json"))
        if index:  # it describes the arrays beside it at any moment
            complete = wanted if index == wanted[Path("dataset.json")] else other
            assert stopped.items() >= {p: c for p, c in complete.items() if p.name != "report.json"}.items(), n


def kill_and_repeat(arguments, out, wanted, kills, seed):
    """Start the command, kill it with SIGKILL ``kills`` times at random moments, let it end; return the seconds."""
    chance, seconds = random.Random(seed), []
    command = [sys.executable, "-m", "data_prep", *arguments, "--out", str(out)]
    cases = sum(path.name.endswith(".label.npy") for path in wanted)
    while len(seconds) < kills:
        process = subprocess.Popen(
            command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        start, done = time.monotonic(), lines_of(out)
        more = chance.randint(-5, 2 * cases // kills)  # none or few: it is killed while it starts
        while process.poll() is None and more > 0 and lines_of(out) < done + more:
            time.sleep(0.002)
        time.sleep(chance.random() * (0.05 if more > 0 else 2))
        if process.poll() is None:
            process.kill()
            seconds.append(time.monotonic() - start)
        process.wait()
        limit = time.monotonic() + 20
        while group_is_alive(process.pid):  # the workers of a killed run end by themselves
            assert time.monotonic() < limit
            time.sleep(0.01)
        if (out / "dataset.json").exists() and not (out / "journal.jsonl").exists():
            assert contents(out) == wanted
            shutil.rmtree(out)  # the run was faster than the kill
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert contents(out) == wanted
    return seconds


def lines_of(out):
    try:
        return (out / "journal.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def group_is_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@ONLY_POSIX
def test_killed_with_its_workers(manifest, square, tmp_path):
    root, add = manifest
    for n in range(40):
        add(f"{n}", RNG.integers(0, 256, square.shape, np.uint8), square)
    pipeline.prepare(ManifestReader(root), tmp_path / "once", progress=False)
    wanted = contents(tmp_path / "once")
    command = ["manifest", "--src", str(root), "--workers", "2"]
    kill_and_repeat(command, tmp_path / "killed", wanted, kills=2, seed=1)


@pytest.mark.slow
@ONLY_POSIX
def test_killed_twenty_times_on_the_real_data(tmp_path):
    if not SHARED.is_dir():
        pytest.skip("the real data are not there")
    pipeline.prepare(ManifestReader(SHARED), tmp_path / "once", workers=2, progress=False)
    wanted = contents(tmp_path / "once")
    command = ["manifest", "--src", str(SHARED), "--workers", "2"]
    seconds = kill_and_repeat(command, tmp_path / "killed", wanted, kills=20, seed=0)
    print(f"killed after {', '.join(f'{s:.1f}' for s in seconds)} s; {len(wanted)} files, equal byte for byte")


def test_on_the_disk_in_an_order_that_a_power_cut_may_end_anywhere(prepare, source, out, monkeypatch):
    """The journal before an array is replaced, all arrays before the index that names them."""
    (source / "2D_US_Set_0.npz").unlink()  # it fails, and every run tries failed cases again
    prepare()
    done, fsync, sync, replace = [], os.fsync, os.sync, os.replace

    def note_fsync(number):
        done.append(f"on disk: {Path(os.readlink(f'/proc/self/fd/{number}')).name}")
        fsync(number)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "sync", lambda: (done.append("on disk: everything"), sync()))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append(f"named: {paths[1].name}"), replace(*paths)))
    os.utime(source / "2D_US_Set_3.npz", ns=(1, 1))
    prepare()
    image = done.index("named: 2D_US_Set_3.image.npy")
    index = done.index("named: dataset.json")
    assert done.index("on disk: journal.jsonl") < done.index("on disk: out") < image
    assert image < done.index("named: 2D_US_Set_3.label.npy") < done.index("on disk: everything") < index
    assert done[index - 1] == f"on disk: .dataset.json.{os.getpid()}.partial"
    done.clear()
    prepare()  # nothing has changed
    assert "on disk: everything" not in done


@ONLY_POSIX
def test_sigterm_to_every_process_of_the_job(manifest, square, tmp_path):
    """Workers leave it to the main process, which ends with one line; the same command continues."""
    root, add = manifest
    for n in range(60):
        add(f"{n}", RNG.integers(0, 256, square.shape, np.uint8), square)
    pipeline.prepare(ManifestReader(root), tmp_path / "once", progress=False)
    out = tmp_path / "stopped"
    command = [sys.executable, "-m", "data_prep", "manifest", "--src", str(root), "--workers", "2", "--out", str(out)]
    options = {"cwd": ROOT, "start_new_session": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **options) as process:
        while process.poll() is None and lines_of(out) < 1:
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        reported = process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM, reported
    assert reported.strip() == "stopped; the same command carries on from here"
    assert not [path for path in out.rglob(".*")] and not (out / "dataset.json").exists()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert contents(out) == contents(tmp_path / "once")
