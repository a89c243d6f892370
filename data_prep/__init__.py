"""Data preparation: sources of any kind become the prepared form that training and evaluation read.

``python -m data_prep VERB --src ... --out ...``; see :mod:`data_prep.cli` for the verbs.
"""

from __future__ import annotations

from custom.bundle_folder import BUNDLE

#: Where ``python -m data_prep demo`` writes when no ``--out`` is given.
DEFAULT_DEMO_DIR = BUNDLE.parent / "data" / "demo"
