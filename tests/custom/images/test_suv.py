from datetime import datetime, timedelta

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import PositronEmissionTomographyImageStorage

from custom.images.dicom import read_series
from custom.images.suv import suv_factor

HALF_LIFE = 6586.2
START = datetime(2024, 3, 1, 10, 0, 0)


def header(correction="START", injected=START - timedelta(hours=1), dated=True, dose=(), **tags):
    item = Dataset()
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = 3.7e8, HALF_LIFE
    if dated:
        item.RadiopharmaceuticalStartDateTime = injected.strftime("%Y%m%d%H%M%S.%f")
    else:
        item.RadiopharmaceuticalStartTime = injected.strftime("%H%M%S")
    for keyword, value in dict(dose).items():
        setattr(item, keyword, value)
    result = Dataset()
    result.PatientWeight, result.DecayCorrection = 70.0, correction
    result.SeriesDate, result.SeriesTime = START.strftime("%Y%m%d"), START.strftime("%H%M%S")
    result.RadiopharmaceuticalInformationSequence = [item]
    for keyword, value in tags.items():
        setattr(result, keyword, value)
    return result


def expected(seconds):
    return 70e3 / (3.7e8 * 0.5 ** (seconds / HALF_LIFE))


@pytest.mark.parametrize("dated", [True, False])
def test_decay_from_injection_to_start(dated):
    assert suv_factor([header(dated=dated)]) == pytest.approx(expected(3600))


def test_corrected_to_injection():
    assert suv_factor([header("ADMIN")]) == pytest.approx(70e3 / 3.7e8)


def test_time_zone_is_that_of_the_scan():
    dose = {"RadiopharmaceuticalStartDateTime": "20240301090000.000000+0100"}
    assert suv_factor([header(dose=dose)]) == pytest.approx(expected(3600))


def test_earliest_acquisition_where_the_series_was_written_later():
    headers = [header(AcquisitionDate="20240301", AcquisitionTime=time) for time in ("093500", "093000")]
    assert suv_factor(headers) == pytest.approx(expected(1800))
    assert suv_factor([header(AcquisitionTime="101500")]) == pytest.approx(expected(3600))


def test_injection_before_midnight():
    tags = {"SeriesTime": "002000"}
    assert suv_factor([header(dated=False, injected=datetime(2024, 1, 1, 23, 50), **tags)]) == pytest.approx(
        expected(1800)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientWeight": None},
        {"PatientWeight": 0},
        {"SeriesTime": ""},
        {"SeriesTime": "soon"},
        {"RadiopharmaceuticalInformationSequence": []},
        {"correction": "NONE"},
        {"correction": None},
        {"injected": START + timedelta(minutes=1)},
        {"dose": {"RadionuclideTotalDose": None}},
        {"PatientWeight": "inf"},
        {"dose": {"RadionuclideHalfLife": None}},
        {"dose": {"RadionuclideHalfLife": 0.001}},
        {"dose": {"RadiopharmaceuticalStartDateTime": ""}},
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_missing_tags(changes):
    assert suv_factor([header(**changes)]) is None


@pytest.mark.parametrize(
    ("units", "weight", "unit", "factor"),
    [("BQML", 70, "SUV", expected(3600)), ("BQML", None, "Bq/ml", 1), ("GML", 70, "SUV", 1), ("CNTS", 70, "CNTS", 1)],
)
def test_series(tmp_path, write_stack, units, weight, unit, factor):
    pixels = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    tags = {element.keyword: element.value for element in header(PatientWeight=weight)}
    tags |= {"SOPClassUID": PositronEmissionTomographyImageStorage, "Modality": "PT", "Units": units}
    write_stack(tmp_path, pixels, edit=lambda k: {"RescaleSlope": 10.5 * (k + 1), "RescaleIntercept": 0}, **tags)
    series = read_series(tmp_path)
    assert (series.unit, series.modality) == (unit, "PET")
    np.testing.assert_allclose(series.array, pixels * 10.5 * np.arange(1, 4)[:, None, None] * factor, rtol=1e-6)
