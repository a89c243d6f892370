"""Record what is finished, so that the next run does only what is missing or has changed.

During a run, ``journal.jsonl`` in the output folder gets one line for each finished case. ``dataset.json`` is written
last, and then the journal is removed. Before the first array is replaced, the cases that stay are moved from the old
``dataset.json`` to the journal and the old one is removed, so that a ``dataset.json`` always describes the arrays
beside it. After an interruption, the same command continues from the journal.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from custom.atomic_write import remove_left_over, sync_folder
from custom.data.prepared import FORMAT, INDEX_NAME, VERSION
from custom.errors import InputError
from custom.json_files import parse_json
from data_prep.readers.base import TRAIN, VALIDATION, Reader, Source
from data_prep.writer import ARRAYS, Outcome, PrepareOptions

try:
    import fcntl
except ImportError:  # Windows has no such lock and does not notice two runs into one folder
    fcntl = None

#: Increase it when the same input gives different arrays or records than before.
PREP_VERSION = 2
JOURNAL_NAME = "journal.jsonl"
REPORT_NAME = "report.json"
#: Marks the records of ``dataset.json`` whose split was drawn.
DRAWN = "drawn"
_PLACE = "where"  # the key for the position of an entry, e.g. the line in a list


class Journal:
    """The state of an output folder; a context manager that locks the folder for one run.

    Args:
        out: the output folder; temporary files of a stopped run are removed from it.

    Raises:
        InputError: another run is using the folder, or its ``dataset.json`` is not that of a prepared set.
        OSError: the folder cannot be written.
    """

    def __init__(self, out: Path) -> None:
        self._out, self._index = out, out / INDEX_NAME
        self._path = out / JOURNAL_NAME
        indexed = _from_index(self._index)
        self._file = self._path.open("a+b", buffering=0)
        try:
            self._lock()
            for folder in (out, out / ARRAYS):
                remove_left_over(folder)
            self._file.seek(0)
            content = self._file.read()
            if content and not content.endswith(b"\n"):
                self._file.write(b"\n")  # ends a half-written line
            self._indexed = {outcome.case for outcome in indexed}
            found = [*indexed, *_from_report(out / REPORT_NAME), *_from_lines(content.splitlines())]
            self._known = {outcome.case: outcome for outcome in found}  # later ones win
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def reusable(self, case: str, fingerprint: str) -> Outcome | None:
        """Return the earlier outcome of a case if nothing it depends on has changed and its arrays are there."""
        outcome = self._known.get(case)
        if outcome is None or outcome.fingerprint != fingerprint or outcome.failed:
            return None
        if outcome.record is not None and not _arrays_are_there(self._out, outcome.record):
            return None
        return replace(outcome, size=0)

    def start(self, kept: Sequence[Outcome], changing: Iterable[str]) -> None:
        """Prepare for arrays to be replaced or removed: remove the index, and forget the changing cases.

        This reaches the disk before the first array, so that it is safe against a power cut.
        """
        if self._index.exists():
            for outcome in kept:
                if outcome.case in self._indexed:
                    self.add(outcome)
        for case in changing:
            if self._known.pop(case, None):  # its arrays may be replaced before its new outcome is recorded
                self.add(Outcome(case))
        os.fsync(self._file.fileno())
        self._index.unlink(missing_ok=True)
        sync_folder(self._out)

    def describes_others(self, cases: set[str]) -> bool:
        """Return whether the index lists any other case."""
        return not self._indexed <= cases

    def add(self, outcome: Outcome) -> None:
        """Record a finished case."""
        self._file.write(to_json_bytes(asdict(outcome)) + b"\n")

    def finish(self) -> None:
        """Remove the journal: ``dataset.json`` is complete."""
        self._file.close()
        self._path.unlink()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(self._out, "out", "another run that is using it", "one run at a time") from None
        except OSError:
            pass  # some network file systems have no locks


def reader_key(reader: Reader) -> Any:
    """Return the class and the options of a reader as JSON values; call it before the reader lists its sources.

    Anything besides paths and options, such as an object that lists the files, does not count: its effect on a case
    is in the entry of the source.
    """
    options = {}
    for name, value in vars(reader).items():
        try:
            options[name] = _plain(value)
        except TypeError:
            continue
    return [type(reader).__name__, options]


def source_fingerprint(source: Source, options: PrepareOptions, key: Any) -> str:
    """Return 16 hexadecimal digits that change with anything the prepared case depends on.

    That is: the entry of the source (without ``"where"``, its position in a list), name, size and modification
    time of its files, the options, the reader (``key``) and ``PREP_VERSION``.
    """
    entry = {name: value for name, value in source.entry.items() if name != _PLACE}
    content = [PREP_VERSION, key, _plain(vars(options)), _plain(entry), [_file_state(file) for file in source.files]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def to_json_bytes(value: Any) -> bytes:
    """Return JSON in UTF-8; bytes of a file name that are not UTF-8 become JSON escapes."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def _file_state(file: str) -> list[Any]:
    try:
        state = os.stat(file)
    except (OSError, ValueError):  # the reader reports the error
        return [os.path.basename(file)]
    return [os.path.basename(file), state.st_size, state.st_mtime_ns]


def _plain(value: Any) -> Any:
    """Return options and entries as JSON values.

    Raises:
        TypeError: a value that is neither JSON nor a path.
    """
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"found {type(value).__name__}; allowed: JSON values and paths")


def _arrays_are_there(out: Path, record: Mapping[str, Any]) -> bool:
    """Return whether both array files have the sizes of the record; reading them would take too long."""
    shape = tuple(record["shape"])
    image_shape = (*shape, 3) if record["channels"] == 3 else shape
    label_type = "|u1" if len(record["labels"]) <= np.iinfo(np.uint8).max else "<u2"
    wanted = (("image", _npy_size(image_shape, "|u1")), ("label", _npy_size(shape, label_type)))
    try:
        return all(os.stat(out / record[key]).st_size == size for key, size in wanted)
    except OSError:
        return False


@lru_cache(maxsize=1024)
def _npy_size(shape: tuple[int, ...], descr: str) -> int:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.tell() + int(np.prod(shape, dtype=np.int64)) * np.dtype(descr).itemsize


def _from_index(path: Path) -> list[Outcome]:
    allowed = "a new folder, or one with a prepared set"
    try:
        index = parse_json(path.read_bytes(), path, allowed)
    except FileNotFoundError:
        return []
    try:
        if index["format"] != FORMAT:
            raise ValueError(index["format"])
        if index["version"] != VERSION:
            return []
        outcomes = []
        for part, split in (("training", TRAIN), ("validation", VALIDATION)):
            for record in index[part]:
                drawn = record.pop(DRAWN, False)
                print_ = record.get("fingerprint", "")
                outcomes.append(Outcome(record["case"], None if drawn else split, record, fingerprint=print_))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(path, "file", "another program's file", allowed) from error
    return outcomes


def _from_report(path: Path) -> list[Outcome]:
    try:
        entries = parse_json(path.read_bytes(), path, "a report")["left_out"]
        return [Outcome(e["case"], problem=e["problem"], fingerprint=e["fingerprint"]) for e in entries]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def _from_lines(lines: Iterable[bytes]) -> Iterator[Outcome]:
    for line in lines:
        try:
            yield Outcome(**parse_json(line, JOURNAL_NAME, "an outcome"))
        except (ValueError, TypeError):  # half-written when the run was stopped
            continue
