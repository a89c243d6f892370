import pytest

from custom.errors import InputError
from custom.lite_medsam import checkpoint_path, lite_medsam_path


def test_a_name_or_a_file(tmp_path):
    (tmp_path / "a.pt").touch()
    assert checkpoint_path("lite_medsam") == lite_medsam_path() and lite_medsam_path().is_file()
    assert checkpoint_path(str(tmp_path / "a.pt")) == tmp_path / "a.pt"
    with pytest.raises(InputError, match=r"b\.pt: checkpoint: found no file"):
        checkpoint_path(tmp_path / "b.pt")
