"""Where the bundle's files are, relative to this package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# In the repository the bundle is beside the package, in a release around it, once installed inside it.
_PLACES = (_PACKAGE.parent / "bundle", _PACKAGE.parent, _PACKAGE / "bundle")

BUNDLE = next((place for place in _PLACES if (place / "configs" / "metadata.json").is_file()), _PLACES[0])
CONFIGS = BUNDLE / "configs"
