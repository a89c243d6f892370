"""Readers, one for each verb of the command line.

A new format needs one subclass of :class:`data_prep.readers.base.Reader`, one entry here and one verb in
:mod:`data_prep.cli`; everything after loading (intensity, masks, writing, report) is shared.
"""

from __future__ import annotations

from data_prep.readers.base import Reader
from data_prep.readers.demo import DemoReader
from data_prep.readers.manifest import ManifestReader
from data_prep.readers.npz import NpzReader

READERS: dict[str, type[Reader]] = {"demo": DemoReader, "manifest": ManifestReader, "npz": NpzReader}

__all__ = ["READERS", "DemoReader", "ManifestReader", "NpzReader", "Reader"]
