import os

import pytest

from custom.files import is_inside


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
