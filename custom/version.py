"""The version, read from the bundle's metadata."""

from __future__ import annotations

import json

from custom.bundle_folder import CONFIGS

__version__: str = json.loads((CONFIGS / "metadata.json").read_text(encoding="utf-8"))["version"]
