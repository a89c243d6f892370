"""Malformed DICOM series."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file

from custom.images.dicom import read_series
from custom.images.dicom_seg_writing import write_seg
from tests.data_prep.malformed.inputs import IGNORED, SKIPPED, cut

CT = Path(get_testdata_file("dicomdirtests/DICOMDIR")).parent / "98892001" / "CT5N"


def dicom_good(root):
    shutil.copytree(CT, root / "good")
    dicom_segment(root / "good", root / "good.seg")
    return {}


def dicom_segment(folder, path):
    series = read_series(folder)
    label = np.zeros(series.array.shape, np.uint8)
    label[:, 2:12, 3:8] = 1
    write_seg(path, label, {1: "organ"}, series)


def dicom(change, *, segment=True):
    """Return a function that adds a copy of the series with other UIDs, changed after it was segmented."""

    def add(root):
        files = []
        for number, file in enumerate(sorted(CT.iterdir())):
            dataset = pydicom.dcmread(file)
            dataset.SeriesInstanceUID, dataset.SOPInstanceUID = "1.2.3", f"1.2.3.{number}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            files.append(root / "bad" / f"{number}.dcm")
            files[0].parent.mkdir(exist_ok=True)
            dataset.save_as(files[-1])
        if segment:
            dicom_segment(root / "bad", root / "bad.seg")
        change(files)

    return add


def edit(number=None, **tags):
    def change(files):
        for file in files if number is None else [files[number]]:
            dataset = pydicom.dcmread(file)
            for keyword, value in tags.items():
                setattr(dataset, keyword, value)
            dataset.save_as(file)

    return change


def position_of(number):
    return pydicom.dcmread(sorted(CT.iterdir())[number]).ImagePositionPatient


DICOM = [
    ("missing slice", dicom(lambda files: files[2].unlink()), SKIPPED, r"a gap of 5 mm"),
    ("one position twice", dicom(edit(2, ImagePositionPatient=position_of(1))), SKIPPED, r"the position of"),
    ("pixels cut off", dicom(lambda files: cut(files[2])), SKIPPED, r"bad/2\.dcm"),
    ("header cut off", dicom(lambda files: cut(files[2], 300)), SKIPPED, r"bad"),
    ("another size", dicom(edit(3, Rows=100)), SKIPPED, r"Rows, Columns"),
    ("no position", dicom(edit(1, ImagePositionPatient=None)), SKIPPED, r"ImagePositionPatient"),
    ("unknown modality", dicom(edit(Modality="OT")), SKIPPED, r"Modality: found 'OT'"),
    ("no label", dicom(lambda files: None, segment=False), SKIPPED, r"label: found none for series 1\.2\.3"),
    ("label alone", dicom(lambda files: shutil.rmtree(files[0].parent)), SKIPPED, r"bad\.seg: series"),
    ("label cut off", dicom(lambda f: cut(f[0].parents[1] / "bad.seg")), SKIPPED, r"bad\.seg"),
    ("text beside", lambda root: (root / "notes.dcm").write_text("x" * 400), IGNORED, ""),
]
