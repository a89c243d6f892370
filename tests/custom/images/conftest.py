import sys

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = ((1, 0, 0), (0, 1, 0))
_RECORDS = []


def _record(event, arguments):
    if event == "open" and _RECORDS:
        _RECORDS[-1].append(str(arguments[0]))


sys.addaudithook(_record)  # sees every file that is opened, by any library


def image_file(path, pixels, **tags):
    """Write one DICOM image, RxC, FxRxC or RxCx3, with the given tags and the fewest others."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.Modality, dataset.PatientID = "CT", "P1"
    colour = pixels.ndim > 2 and pixels.shape[-1] == 3
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return dataset


@pytest.fixture
def write_image():
    """Return a function that writes one DICOM image."""
    return image_file


@pytest.fixture
def write_stack():
    """Return a function that writes a stack, KxRxC, one file for each slice, and returns the files' tags in order.

    ``edit(k)`` returns further tags of slice k; None omits the slice.
    """

    def write(folder, pixels, *, directions=AXIAL, spacing=(0.7, 0.9), gap=2.5, first=(10, -20, 30), edit=None, **tags):
        row, column = (np.array(d, float) for d in directions)
        datasets = []
        for k in np.random.default_rng(0).permutation(len(pixels)):  # file names do not show the order
            position = np.array(first, float) + k * gap * np.cross(row, column)
            own = {} if edit is None else edit(k)
            if own is None:
                continue
            place = {
                "ImagePositionPatient": [round(float(x), 6) for x in position],
                "ImageOrientationPatient": [round(float(x), 8) for x in (*row, *column)],
                "PixelSpacing": list(spacing),
                "SliceThickness": 1,
                "FrameOfReferenceUID": "1.2.3.5",
                "SOPInstanceUID": f"1.2.3.4.{k + 1}",
            }
            datasets.append((k, image_file(folder / f"{len(datasets)}.dcm", pixels[k], **place | tags | own)))
        return [dataset for _, dataset in sorted(datasets, key=lambda pair: pair[0])]

    return write


@pytest.fixture
def opened():
    """Return the list of the files that are opened from now on."""
    _RECORDS.append([])
    yield _RECORDS[-1]
    _RECORDS.pop()
