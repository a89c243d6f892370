import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from custom.inference.backend import Decoded
from custom.inference.models import Model
from custom.modalities import MODALITIES


class FakeBackend:
    """A stand-in for the network: a mask is where the frame's image is bright, inside the box or ``reach`` around it.

    The embedding is the frame's image itself. IoU and modality follow from the box alone, so results differ by box. An
    object without a box has one of 60 pixels around its first click. Clicks correct the mask before them within 20
    pixels, each with another strength. All calls are recorded: ``encoded`` images (each as its sum), ``decoded`` calls
    (their prompts), and ``answered``, the number of calls in which the decoder ran.
    """

    crop_size, clip_image = 64, False

    def __init__(self, *, uses_modality=True, reach=0.5, likely="US", sure=4.0, takes_clicks=True, click_tokens=False):
        self.uses_modality, self.reach, self.likely, self.sure = uses_modality, reach, likely, sure
        self.takes_clicks, self.click_tokens = takes_clicks, click_tokens
        self.encoded, self.decoded, self.contents, self.answered = [], [], 0, 0

    def encode(self, images):
        assert images.dtype == np.float32 and images.shape[1:] == (3, 256, 256)
        self.encoded += [float(image.sum()) for image in images]
        return list(images)

    def clip_features(self, image, boxes):
        assert image.dtype == np.uint8 and image.shape[0] == 3
        return None

    def encode_content(self, crops):
        self.contents += 1
        return crops.mean(axis=1, keepdims=True)

    def decode(self, embedding, prompts, answer=None):
        boxes, features = prompts.boxes, prompts.image_features
        assert boxes.shape == (len(boxes), 4) and prompts.crops.shape == (len(boxes), 3, 64, 64) and features is None
        self.decoded.append(prompts)
        if answer is None or self.click_tokens:
            answer = self.answer(embedding, prompts)
        if prompts.views is None:
            return answer
        masks = answer.mask_logits if prompts.masks is None else 0.5 * (answer.mask_logits + prompts.masks)
        y, x = np.mgrid[:256, :256]
        strengths = 20.0 * np.where(prompts.point_labels < 0, 0, 2 * prompts.point_labels - 1)
        strengths = strengths * (1 + 0.1 * np.arange(strengths.shape[1]))
        for mask, points, signed in zip(masks := masks.copy(), prompts.points, strengths, strict=True):
            for (column, row), strength in zip(points, signed, strict=True):
                mask[(x - column) ** 2 + (y - row) ** 2 <= 400] += strength
        seen = prompts.views.mean(axis=(1, 2, 3)) + prompts.view_boxes.mean(axis=1) / 256
        return answer._replace(mask_logits=masks.astype(np.float32), iou=(answer.iou + seen / 9).astype(np.float32))

    def answer(self, embedding, prompts):
        self.answered += 1
        boxes = prompts.boxes
        if prompts.points is not None:
            boxes = np.where(boxes[:, 2:3] < 0, np.tile(prompts.points[:, 0], 2) + [-30, -30, 30, 30], boxes)
        y, x = np.mgrid[:256, :256]
        logits = []
        for x_min, y_min, x_max, y_max in boxes:
            within = (x >= x_min - self.reach) & (x <= x_max + self.reach)
            within &= (y >= y_min - self.reach) & (y <= y_max + self.reach)
            strength = 1 + (x_min + 2 * y_min + 3 * x_max) % 7
            logits.append(np.where(within, (embedding[0] - 0.5) * strength, -strength))
        modality_logits = np.zeros((len(boxes), len(MODALITIES)), np.float32)
        modality_logits[:, MODALITIES.index(self.likely)] = self.sure
        modality_logits[:, 0] += boxes[:, 0] / 256
        iou = ((boxes[:, 2] - boxes[:, 0]) / 256).astype(np.float32)
        masks = np.stack(logits).astype(np.float32)
        return Decoded(masks, iou, modality_logits if self.uses_modality else None)


def fake_model(backend, **facts):
    return Model(facts={"backend": "fake", "checkpoint": "fake.pt", **facts}, make=lambda: backend)


@pytest.fixture
def make_backend():
    """The class of a backend that needs no network."""
    return FakeBackend


@pytest.fixture
def make_model():
    """Return a function that wraps a backend as the model of a run."""
    return fake_model


def axial_series(folder, slices, *, spacing=(0.8, 0.6), gap=2.5, first=(-20.0, -30.0, 40.0), directions=None, **tags):
    """Write slices, KxRxC int16, one file each with names that do not show the order."""
    row, column = directions or ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    normal = np.cross(row, column)
    folder.mkdir(parents=True, exist_ok=True)
    for k, pixels in enumerate(slices):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"1.2.3.9.{k + 1}"
        data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
        data.Modality, data.PatientID = "CT", "P1"
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.PixelSpacing, data.SliceThickness = list(spacing), gap
        data.ImageOrientationPatient = [*row, *column]
        data.ImagePositionPatient = [round(float(x), 6) for x in np.array(first) + k * gap * normal]
        data.PixelData = pixels.astype(np.int16).tobytes()
        for keyword, value in tags.items():
            setattr(data, keyword, value)
        data.save_as(folder / f"{(7 * k) % 101:03d}.dcm", enforce_file_format=True)
    return folder


@pytest.fixture
def write_series():
    """Return a function that writes a DICOM series."""
    return axial_series
