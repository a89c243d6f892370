"""Standardised uptake value of PET by body weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

from pydicom.dataset import Dataset
from pydicom.valuerep import DA, DT, TM

_GRAMS = 1000.0  # in a kilogram: SUV assumes 1 g for 1 ml of tissue


def suv_factor(headers: Sequence[Dataset]) -> float | None:
    """Return SUV for 1 Bq/ml, body weight in g / activity in Bq at the time of decay correction.

    ``DecayCorrection`` ADMIN: corrected to the injection, so the whole dose counts. START: corrected to the start of
    the scan, so the dose decays from the injection until then. The start is SeriesDate and SeriesTime, or the earliest
    acquisition if a series was written again and its time is later than that. An injection without a date is on the
    day of the scan, or on the day before if its time of day is later than the scan's. Tags: DICOM PS3.3, C.8.9.1
    (series) and C.8.9.2 (isotope).

    ``headers`` are those of every file of the series. None means that a required tag is missing, empty or makes no
    sense.
    """
    first = headers[0]
    doses = first.get("RadiopharmaceuticalInformationSequence") or []
    try:
        if len(doses) != 1:
            return None
        weight, dose = float(first.get("PatientWeight") or 0), float(doses[0].get("RadionuclideTotalDose") or 0)
        if not (0 < weight < math.inf and 0 < dose < math.inf):
            return None
        correction = first.get("DecayCorrection")
        if correction == "ADMIN":
            return weight * _GRAMS / dose
        half_life, start = float(doses[0].get("RadionuclideHalfLife") or 0), _scan_start(headers)
        if correction != "START" or not half_life > 0 or start is None:
            return None
        injection = _injection(doses[0], start)
        if injection is None or injection > start:
            return None
        return weight * _GRAMS / (dose * 2 ** (-(start - injection).total_seconds() / half_life))
    except (ValueError, TypeError, ArithmeticError):  # not a number or a time, or a decay to zero
        return None


def _scan_start(headers: Sequence[Dataset]) -> datetime | None:
    times = [_moment(header, "Acquisition") for header in headers]
    acquired = min((time for time in times if time is not None), default=None)
    series = _moment(headers[0], "Series")
    return min((time for time in (series, acquired) if time is not None), default=None)


def _injection(dose: Dataset, start: datetime) -> datetime | None:
    if dose.get("RadiopharmaceuticalStartDateTime"):
        return DT(dose.RadiopharmaceuticalStartDateTime).replace(tzinfo=None)
    if not dose.get("RadiopharmaceuticalStartTime"):
        return None
    injection = datetime.combine(start.date(), TM(dose.RadiopharmaceuticalStartTime))
    return injection - timedelta(days=1) if injection > start else injection


def _moment(header: Dataset, event: str) -> datetime | None:
    date, time = header.get(f"{event}Date") or header.get("SeriesDate"), header.get(f"{event}Time")
    return datetime.combine(DA(date), TM(time)) if date and time else None
