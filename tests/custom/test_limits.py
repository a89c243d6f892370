import pytest

from custom.errors import InputError
from custom.images.decoding import check_size
from custom.limits import BYTES, PIXELS, Limit


def test_the_environment_sets_a_limit(monkeypatch):
    limit = Limit("MCP_MEDSAM_MAX_TEST", 5, "things")
    limit.check(5, "x", "y")
    with pytest.raises(InputError, match=r"x: y: found 6 things; allowed: at most 5; .* MCP_MEDSAM_MAX_TEST raises it"):
        limit.check(6, "x", "y")
    monkeypatch.setenv("MCP_MEDSAM_MAX_TEST", "6")
    limit.check(6, "x", "y")
    for text in ("0", "-1", "many", "1e9", ""):
        monkeypatch.setenv("MCP_MEDSAM_MAX_TEST", text)
        with pytest.raises(InputError, match="environment: MCP_MEDSAM_MAX_TEST: found"):
            limit.check(1, "x", "y")


def test_honest_images_pass():
    check_size((1, 8192, 8192), "x", itemsize=8)  # RGBA of 16 bits
    check_size((1000, 512, 512), "x", itemsize=8)  # float64
    with pytest.raises(InputError, match=BYTES.variable):
        check_size((3000, 512, 512), "x", itemsize=8)
    with pytest.raises(InputError, match=PIXELS.variable):
        check_size((1, 10**5, 10**5), "x")
