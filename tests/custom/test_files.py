import os

import pytest

from custom.files import files_below, is_inside


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("a/b", True),
        ("a", True),
        ("a/../a/b", True),
        ("a/../b", False),
        ("ab", False),
        ("a/../../a", False),
        ("/etc/passwd", False),
    ],
)
def test_inside(tmp_path, path, inside):
    assert is_inside(tmp_path / path, tmp_path / "a") is inside


def test_a_folder_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    os.symlink(tmp_path / "disk", tmp_path / "set")
    assert is_inside(tmp_path / "set" / "arrays" / "x.npy", tmp_path / "set")


def test_files_below(tmp_path):
    for name in ("b/c.txt", "a.txt", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "dangling").symlink_to("none")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "closed").mkdir(mode=0)
    assert files_below(tmp_path) == [str(tmp_path / name) for name in (".hidden", "a.txt", "b/c.txt")]
    (tmp_path / "closed").chmod(0o700)
    assert files_below(tmp_path / "none") == []
