"""What earlier runs have finished, so that the next run does only what is missing or has changed.

While a run is under way ``journal.jsonl`` in the output folder takes one line for each case as it is finished;
``dataset.json`` is written last, and then the journal goes. Before the first array is replaced, the cases that stay go
from the old ``dataset.json`` to the journal and the old one is removed: a ``dataset.json`` that is there always
describes the arrays beside it. After a stop at any moment the same command carries on from the journal.
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

from custom.data.prepared import FORMAT, INDEX_NAME, VERSION
from custom.errors import InputError
from custom.files import remove_left_over, sync_folder
from custom.json_files import parse_json
from data_prep.readers.base import TRAIN, VALIDATION, Reader, Source
from data_prep.writer import ARRAYS, Options, Outcome

try:
    import fcntl
except ImportError:  # Windows has no such lock; two runs into one folder are not noticed there
    fcntl = None

#: Raise it when the same input gives other arrays or another record than before.
PREP_VERSION = 2
JOURNAL_NAME = "journal.jsonl"
REPORT_NAME = "report.json"
#: Marks the records of ``dataset.json`` whose split was drawn.
DRAWN = "drawn"
_PLACE = "where"  # the key of an entry that only says where it stands, e.g. on which line of a list


class Journal:
    """The state of an output folder; a context manager that holds it for one run at a time.

    Args:
        out: the output folder; left-over temporary files of a run that was stopped are removed from it.

    Raises:
        InputError: another run is working there, or its ``dataset.json`` is no prepared set.
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
            self._known = {outcome.case: outcome for outcome in found}  # later ones count
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
        """Make ready for arrays to be replaced or removed: the index goes, and changing cases are forgotten.

        That reaches the disk before the first array does, so that it holds after a power cut too.
        """
        if self._index.exists():
            for outcome in kept:
                if outcome.case in self._indexed:
                    self.add(outcome)
        for case in changing:
            if self._known.pop(case, None):  # its arrays may be replaced before its new outcome is noted
                self.add(Outcome(case))
        os.fsync(self._file.fileno())
        self._index.unlink(missing_ok=True)
        sync_folder(self._out)

    def describes_others(self, cases: set[str]) -> bool:
        """Tell whether the index lists a case that is none of these."""
        return not self._indexed <= cases

    def add(self, outcome: Outcome) -> None:
        """Note a finished case."""
        self._file.write(to_json_bytes(asdict(outcome)) + b"\n")

    def finish(self) -> None:
        """Remove the journal: ``dataset.json`` says it all now."""
        self._file.close()
        self._path.unlink()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(self._out, "out", "another run that works there", "one run at a time") from None
        except OSError:
            pass  # some network file systems have no locks


def reader_key(reader: Reader) -> Any:
    """Return the class and the options of a reader as JSON values; to be taken before it lists its sources.

    What a reader keeps beside paths and options, such as an object that lists the files, does not count: what comes
    of it for a case is in the entry of its source.
    """
    options = {}
    for name, value in vars(reader).items():
        try:
            options[name] = _plain(value)
        except TypeError:
            continue
    return [type(reader).__name__, options]


def fingerprint(source: Source, options: Options, key: Any) -> str:
    """Return 16 hexadecimal digits that change with anything the prepared case depends on.

    That is: the entry of the source (without ``"where"``, the place it is listed at), name, size and modification
    time of its files, the options, the reader (``key``) and ``PREP_VERSION``.
    """
    entry = {name: value for name, value in source.entry.items() if name != _PLACE}
    content = [PREP_VERSION, key, _plain(vars(options)), _plain(entry), [_file_state(file) for file in source.files]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def to_json_bytes(value: Any) -> bytes:
    """Return JSON in UTF-8; bytes of a file name that are no UTF-8 become JSON escapes."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def _file_state(file: str) -> list[Any]:
    try:
        state = os.stat(file)
    except (OSError, ValueError):  # the reader says what is wrong with it
        return [os.path.basename(file)]
    return [os.path.basename(file), state.st_size, state.st_mtime_ns]


def _plain(value: Any) -> Any:
    """Return options and entries as JSON values.

    Raises:
        TypeError: something else is among them.
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
    """Compare the sizes of both array files with what the record says; reading them would take too long."""
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
