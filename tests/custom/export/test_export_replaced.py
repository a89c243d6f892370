import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from custom.errors import InputError
from custom.export import folder as module
from custom.export.folder import Description, write_folder

DESCRIPTION = Description(
    checkpoint="a.pt",
    digest="0",
    precision="f32",
    components={},
    modalities=("CT",),
    crop_size=64,
    clip_width=512,
    takes_clicks=False,
    click_tokens=False,
    graphs={},
    left_out=(),
    made_with={},
)


def export(out, content):
    write_folder(out, DESCRIPTION, lambda folder: (folder / "encoder.bin").write_text(content))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_replaces_an_earlier_export(tmp_path):
    for content in ("old", "new"):
        export(tmp_path / "f32", content)
        assert names(tmp_path) == ["f32"] and names(tmp_path / "f32") == ["encoder.bin", "model.json"]
        assert (tmp_path / "f32" / "encoder.bin").read_text() == content
    assert json.loads((tmp_path / "f32" / "model.json").read_text())["checkpoint"] == "a.pt"


@pytest.mark.parametrize("at", [1, 2])
def test_an_error_between_the_two_renames_puts_the_old_one_back(tmp_path, monkeypatch, at):
    export(tmp_path / "f32", "old")
    rename, left = os.rename, [at]

    def broken(*paths):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        rename(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "rename", broken)
        with pytest.raises(KeyboardInterrupt):
            export(tmp_path / "f32", "new")
    assert names(tmp_path) == ["f32"] and (tmp_path / "f32" / "encoder.bin").read_text() == "old"


def test_what_a_killed_run_has_left(tmp_path):
    """One was killed between the two renames, and another while it was writing."""
    export(tmp_path / "f32", "old")
    (tmp_path / "f32").rename(tmp_path / ".f32.7.old")
    for other in (".f32.7.partial", ".f32.8.partial", ".bf16.7.partial"):
        (tmp_path / other).mkdir()

    def fail(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_folder(tmp_path / "f32", DESCRIPTION, fail)
    assert names(tmp_path) == [".bf16.7.partial", "f32"]
    assert (tmp_path / "f32" / "encoder.bin").read_text() == "old"


WRITER = """
import sys, time
from pathlib import Path
from tests.custom.export.test_export_replaced import DESCRIPTION, write_folder
out, content = sys.argv[1:]
def write(folder):
    (folder / "encoder.bin").write_text(content)
    time.sleep(0.2)
for _ in range(3):
    write_folder(out, DESCRIPTION, write)
"""


def test_several_at_the_same_time(tmp_path):
    """None fails or removes what another is writing, and one of them is complete."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", WRITER, tmp_path / "f32"]
    writers = [subprocess.Popen([*command, content], env=environment) for content in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert names(tmp_path) == ["f32"] and names(tmp_path / "f32") == ["encoder.bin", "model.json"]
    assert (tmp_path / "f32" / "encoder.bin").read_text() in "abc"


def test_without_locks_nothing_of_others_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "fcntl", None)
    (tmp_path / ".f32.7.partial").mkdir()
    export(tmp_path / "f32", "new")
    assert names(tmp_path) == [".f32.7.partial", "f32"]


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file, which cannot be written"):
        export(tmp_path / "file" / "f32", "new")
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    with pytest.raises(InputError, match="which cannot be written"):
        export(tmp_path / "f32", "new")


def test_something_else_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(InputError, match="something else there"):
        export(tmp_path / "mine", "new")
    assert names(tmp_path) == ["mine"]
