"""Data preparation: sources of any kind become the prepared form that training and evaluation read.

``python -m data_prep VERB --src ... --out ...``; see :mod:`data_prep.cli` for the verbs.
"""

from __future__ import annotations

from pathlib import Path

#: Where ``python -m data_prep demo`` writes when no ``--out`` is given.
DEFAULT_DEMO_DIR = Path(__file__).resolve().parents[1] / "data" / "demo"
