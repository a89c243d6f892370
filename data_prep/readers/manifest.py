"""Reader of folders with one ``<Modality>/manifest.jsonl`` each.

One JSON object per line: ``image`` and ``label`` (paths relative to the manifest), ``modality``, ``dataset``, ``split``
(``train`` or ``val``), ``case``, ``labels`` (id -> name, or ``{"*": name}`` for instance maps); optional
``label_type`` (``semantic`` or ``instance``), ``patient``, ``license``, ``source``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from custom.errors import InputError
from custom.images.reading import read_labels
from custom.json_files import parse_json
from custom.limits import JSON_BYTES
from custom.modalities import canonical_modality
from data_prep.readers.base import ALL_IDS, TRAIN, VALIDATION, Case, Reader, Source, parse_names, read_raw, safe_name

_TEXT_FIELDS = ("image", "label", "modality", "dataset", "split", "case")
_META_FIELDS = ("patient", "license", "source")


class ManifestReader(Reader):
    """Read images and label maps of any format that manifests list.

    Ids in a label file that are not in ``labels`` are dropped, because the listed ids are the targets, unless
    ``labels`` has ``"*"``, which names every other id.

    Args:
        src: folder with the ``<Modality>/manifest.jsonl`` files.

    Raises:
        InputError: the folder is missing.
    """

    def __init__(self, src: str | Path) -> None:
        self.use_folder(src, "a folder with <Modality>/manifest.jsonl")

    def sources(self) -> list[Source]:
        """List the lines of every manifest, manifests in alphabetical order."""
        manifests = sorted(self.src.glob("*/manifest.jsonl"))
        found = [source for manifest in manifests for source in self._lines(manifest)]
        if not found:
            raise InputError(self.src, "src", "no manifest lines", "a folder with <Modality>/manifest.jsonl")
        return found

    def load(self, source: Source) -> Case:
        """Load the image and the label of one line."""
        entry, where = source.entry["line"], source.entry["where"]
        folder = Path(source.entry["folder"])
        modality = canonical_modality(entry["modality"], where)
        if entry["split"] not in (TRAIN, VALIDATION):
            raise InputError(where, "split", repr(entry["split"]), f"{TRAIN}, {VALIDATION}")
        names = parse_names(entry.get("labels"), where, "labels")
        kind = entry.get("label_type", "semantic")
        if kind not in ("semantic", "instance"):
            raise InputError(where, "label_type", repr(kind), "semantic, instance")
        image = read_raw(folder / entry["image"])
        labels = read_labels(folder / entry["label"], image)
        return Case(
            name=source.name,
            modality=modality,
            dataset=entry["dataset"],
            split=entry["split"],
            image=image,
            label=labels.array,
            label_file=labels.path,
            names=names,
            instance=kind == "instance" or ALL_IDS in names,
            meta={key: str(entry[key]) for key in _META_FIELDS if entry.get(key)},
        )

    @staticmethod
    def _lines(manifest: Path) -> Iterator[Source]:
        JSON_BYTES.check(manifest.stat().st_size, manifest, "file")
        with manifest.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                where = f"{manifest}:{number}"
                try:
                    entry = _parse(line, where)
                except InputError as error:
                    yield Source(where, error=error)
                    continue
                name = safe_name(entry["modality"], entry["dataset"], entry["case"])
                files = tuple(str(manifest.parent / entry[kind]) for kind in ("image", "label"))
                yield Source(name, {"line": entry, "where": where, "folder": str(manifest.parent)}, files)


def _parse(line: str, where: str) -> dict[str, Any]:
    entry = parse_json(line, where, "one JSON object per line", field="line")
    if not isinstance(entry, dict):
        raise InputError(where, "line", type(entry).__name__, "one JSON object per line")
    for key in _TEXT_FIELDS:
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise InputError(where, key, repr(entry.get(key)), "text")
    return entry
