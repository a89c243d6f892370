"""Every reader to test with damaged files."""

from __future__ import annotations

from tests.reliability.fuzz import Target
from tests.reliability.image_targets import IMAGE_TARGETS
from tests.reliability.set_targets import SET_TARGETS

TARGETS: dict[str, Target] = IMAGE_TARGETS | SET_TARGETS
