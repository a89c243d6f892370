"""Data preparation: convert data of any source to the prepared form that training and evaluation read.

``python -m data_prep VERB --src ... --out ...``; see :mod:`data_prep.cli` for the verbs.
"""

from __future__ import annotations

from custom.bundle_folder import BUNDLE

#: Where ``python -m data_prep demo`` writes without ``--out``.
DEFAULT_DEMO_DIR = BUNDLE.parent / "data" / "demo"
