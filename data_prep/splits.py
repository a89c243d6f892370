"""Choose the cases for validation if the source gives no split, and check that the two sides share nothing."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from custom.errors import InputError
from data_prep.readers.base import TRAIN, VALIDATION

ERROR, WARN = "error", "warn"
Record = Mapping[str, Any]
_Group = tuple[str, ...]  # ("patient", dataset, patient) or ("digest", digest of the image)


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How cases without a split are divided.

    Args:
        val_fraction: part of the patients of each data set that is for validation, 0..1.
        patient_pattern: regular expression searched in the name of a case that has no patient; its first group is
            the patient.
        leakage: what to do when training and validation share a patient or an image: ``"error"`` or ``"warn"``.

    Raises:
        InputError: a value that is not allowed.
    """

    val_fraction: float = 0.1
    patient_pattern: str | None = None
    leakage: str = ERROR

    def __post_init__(self) -> None:
        fraction = self.val_fraction
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1:
            raise InputError("arguments", "val_fraction", repr(fraction), "a number from 0 to 1")
        if self.leakage not in (ERROR, WARN):
            raise InputError("arguments", "leakage", repr(self.leakage), f"{ERROR}, {WARN}")
        if self.patient_pattern is not None:
            try:
                groups = re.compile(self.patient_pattern).groups
            except (re.error, TypeError) as error:
                raise InputError(
                    "arguments", "patient_pattern", f"{self.patient_pattern!r} ({error})", _PATTERN
                ) from None
            if not groups:
                raise InputError("arguments", "patient_pattern", f"{self.patient_pattern!r} without a group", _PATTERN)

    def patient(self, record: Record) -> str:
        """Return the patient of a case: from the source, else by the pattern, else the case itself."""
        if record.get("patient"):
            return str(record["patient"])
        match = re.search(self.patient_pattern, record["case"]) if self.patient_pattern else None
        return (match[1] if match else None) or record["case"]


_PATTERN = 'a regular expression with one group, e.g. "_p([0-9]+)_"'


def draw_splits(records: Sequence[Record], given: Sequence[str | None], rule: SplitRule) -> list[str]:
    """Return the split of every case; the order of the cases does not matter.

    Cases of one patient, and cases with the same image, form a group that is not divided. A group with a case whose
    split is given follows it. Of the other groups of a data set, in the order of the SHA-256 of data set and patient,
    the first ``round(val_fraction * groups)`` are for validation: at least one, if there are two or more and the
    fraction is above 0.

    Args:
        records: entries of ``dataset.json``.
        given: for each of them ``"train"``, ``"val"``, or None if it is to be drawn.
        rule: how to divide.
    """
    keys = _join(records, rule)
    splits: dict[_Group, str] = {}
    for key, split in zip(keys, given, strict=True):
        if split:
            splits[key] = max(split, splits.get(key, split))  # a group on both sides: "val", in any order
    waiting: dict[str, set[_Group]] = defaultdict(set)
    for key in keys:
        if key not in splits:
            waiting[key[1]].add(key)
    for groups in waiting.values():
        count = round(rule.val_fraction * len(groups))
        if rule.val_fraction > 0 and len(groups) > 1:
            count = max(count, 1)
        for n, key in enumerate(sorted(groups, key=_order)):
            splits[key] = VALIDATION if n < count else TRAIN
    return [split or splits[key] for key, split in zip(keys, given, strict=True)]


def find_leaks(training: Sequence[Record], validation: Sequence[Record], rule: SplitRule) -> list[str]:
    """Return one line for each patient of a data set, and each image, that is in training and in validation."""
    lines = []
    for kind in (_patient_key, _image_key):
        sides = ({}, {})
        for side, records in zip(sides, (training, validation), strict=True):
            for record in records:
                side.setdefault(kind(record, rule), record["case"])
        for key in sorted(sides[0].keys() & sides[1].keys()):
            what = f"patient {key[2]} of {key[1]}" if kind is _patient_key else "one image"
            lines.append(f"{what}: {sides[0][key]} in training, {sides[1][key]} in validation")
    return lines


def _patient_key(record: Record, rule: SplitRule) -> _Group:
    return ("patient", record["dataset"], rule.patient(record))


def _image_key(record: Record, rule: SplitRule) -> _Group:
    return ("digest", record["digest"])


def _join(records: Sequence[Record], rule: SplitRule) -> list[_Group]:
    """Return for each case the first, in order, of the patients that it is connected with, by patient or image."""
    above: dict[_Group, _Group] = {}

    def top(key: _Group) -> _Group:
        while above.setdefault(key, key) != key:
            above[key] = above[above[key]]
            key = above[key]
        return key

    for record in records:
        # Patients count before images, so that the top of every group is a patient.
        first, last = sorted((top(_patient_key(record, rule)), top(_image_key(record, rule))), key=_rank)
        above[last] = first
    return [top(_patient_key(record, rule)) for record in records]


def _rank(key: _Group) -> tuple[bool, str]:
    return key[0] != "patient", _order(key)


def _order(key: _Group) -> str:
    return hashlib.sha256("\0".join(key[1:]).encode("utf-8", "surrogatepass")).hexdigest()
