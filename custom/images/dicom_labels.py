"""Label objects of DICOM: which images a SEG or an RTSTRUCT refers to, and reading either on their grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset

from custom.images.decoding import decoding
from custom.images.dicom import DicomSeries
from custom.images.dicom_files import read_dataset, text_of
from custom.images.dicom_rtstruct import read_rtstruct
from custom.images.dicom_seg import read_seg

#: DICOM's Modality of a label object -> its reader.
LABEL_READERS: dict[str, Callable[[str | Path, DicomSeries], tuple[np.ndarray, dict[int, str]]]] = {
    "SEG": read_seg,
    "RTSTRUCT": read_rtstruct,
}


@dataclass(frozen=True)
class LabelReferences:
    """The images that a label object refers to.

    Attributes:
        images: SeriesInstanceUID -> SOPInstanceUIDs of its images; may be empty.
        frames_of_reference: FrameOfReferenceUIDs of its labels; may be empty.
    """

    images: Mapping[str, frozenset[str]]
    frames_of_reference: frozenset[str]


def label_references(path: str | Path) -> LabelReferences:
    """Read what a SEG or RTSTRUCT refers to from its header.

    Raises:
        InputError: the file cannot be read.
    """
    with decoding(path, "DICOM label object"):
        tags = ["ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence", "FrameOfReferenceUID"]
        header = read_dataset(path, pixels=False, tags=tags)
        frames = {text_of(header, "FrameOfReferenceUID")}
        images = _named(header, "ReferencedSeriesSequence", "ReferencedInstanceSequence")
        for frame in header.get("ReferencedFrameOfReferenceSequence") or []:
            frames.add(text_of(frame, "FrameOfReferenceUID"))
            for study in frame.get("RTReferencedStudySequence") or []:
                images |= _named(study, "RTReferencedSeriesSequence", "ContourImageSequence")
    return LabelReferences(images, frozenset(frames - {""}))


def _named(dataset: Dataset, series: str, instances: str) -> dict[str, frozenset[str]]:
    return {
        text_of(item, "SeriesInstanceUID"): frozenset(
            text_of(image, "ReferencedSOPInstanceUID") for image in item.get(instances) or []
        )
        for item in dataset.get(series) or []
    }
