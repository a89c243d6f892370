import importlib
import sys
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest


def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch):
    """A server that answers for weeks would fill its disk with them."""

    def full(*_):
        raise OSError(28, "No space left on device")

    module = "custom.label_app.result_files"
    monkeypatch.setitem(sys.modules, "nrrd", SimpleNamespace(write=full))  # of the server's own environment
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    image = SimpleNamespace(geometry=None, format="picture")
    try:
        with pytest.raises(OSError, match="No space"):
            importlib.import_module(module).write_result(
                np.zeros((3, 4, 1), np.uint8), image, {"result_extension": ".nrrd"}
            )
    finally:
        sys.modules.pop(module, None)
    assert list(tmp_path.iterdir()) == []
