import pytest

from custom.errors import InputError
from custom.lite_medsam import lite_medsam_path
from custom.report.checkpoints import named_checkpoints


def test_names(tmp_path):
    for name in ("one.pt", "two.pt"):
        (tmp_path / name).touch()
    found = named_checkpoints([tmp_path / "one.pt", f"a = b={tmp_path / 'two.pt'}", "LiteMedSAM=lite_medsam"])
    assert found == {
        "one": tmp_path / "one.pt",
        "a = b": tmp_path / "two.pt",
        "LiteMedSAM": lite_medsam_path(),
    }


@pytest.mark.parametrize("texts", [[], ["none.pt"], ["{}", "{}"], ["a={}", "a={}"], ["a/b={}"], ["={}"]])
def test_wrong_names(tmp_path, texts):
    (tmp_path / "one.pt").touch()
    with pytest.raises(InputError, match="allowed: (one at least|a checkpoint file|a name for each)"):
        named_checkpoints([text.format(tmp_path / "one.pt") for text in texts])
