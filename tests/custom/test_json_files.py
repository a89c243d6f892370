import pytest

from custom.errors import InputError
from custom.json_files import parse_json, read_json


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "file: found invalid JSON"),
        (b"[" * 10**6, "file: found invalid JSON"),
        (b"1" * 10**5, "file: found invalid JSON"),  # a number of 100,000 digits would take long to convert
        (b"\xff\xfe\xfd", "file: found invalid JSON"),
        (b"", "file: found invalid JSON"),
    ],
)
def test_what_is_no_json(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_json(tmp_path / "a.json", "a list")


def test_size(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("[1, 2]")
    monkeypatch.setenv("MCP_MEDSAM_MAX_JSON_BYTES", "6")
    assert read_json(tmp_path / "a.json", "a list") == [1, 2]
    monkeypatch.setenv("MCP_MEDSAM_MAX_JSON_BYTES", "5")
    with pytest.raises(InputError, match="found 6 bytes of JSON; allowed: at most 5; .*MAX_JSON_BYTES raises it"):
        read_json(tmp_path / "a.json", "a list")


@pytest.mark.parametrize("name", ["none.json", "a\0b", "x" * 5000, "\ud800"])
def test_what_is_no_file(tmp_path, name):
    with pytest.raises(InputError, match="a list"):
        read_json(tmp_path / name, "a list")


def test_constants():
    assert parse_json("[NaN, 1]", "x", "y", constant=lambda _: None) == [None, 1]
