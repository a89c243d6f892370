"""Readers, one for each verb of the command line with a source.

A new file format needs nothing here: it is a module in :mod:`custom.images.formats`, which every reader uses. A new
kind of data set needs one subclass of :class:`data_prep.readers.base.Reader`, one entry here and one verb in
:mod:`data_prep.cli`; everything after loading (intensity, masks, splits, writing, report) is shared.
"""

from __future__ import annotations

import pkgutil
from collections import UserDict
from collections.abc import Mapping

from data_prep.readers.base import Reader


class _Readers(UserDict[str, str]):
    """Verb -> reader class, imported on first use: some need libraries that the others do not."""

    def __getitem__(self, verb: str) -> type[Reader]:
        return pkgutil.resolve_name(self.data[verb])


READERS: Mapping[str, type[Reader]] = _Readers(
    demo="data_prep.readers.demo:DemoReader",
    manifest="data_prep.readers.manifest:ManifestReader",
    npz="data_prep.readers.npz:NpzReader",
    nifti="data_prep.readers.nifti:NiftiReader",
    dicom="data_prep.readers.dicom:DicomReader",
    images="data_prep.readers.images:ImagesReader",
    coco="data_prep.readers.coco:CocoReader",
)
