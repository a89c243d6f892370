"""A folder with an exported network: its graphs (``GRAPHS``; .xml and .bin), and ``model.json`` about them."""

from __future__ import annotations

import glob
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

from custom.atomic_write import sync_folder
from custom.errors import InputError
from custom.json_files import read_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FORMAT, VERSION = "mcp-medsam-openvino", 3
DESCRIPTION = "model.json"
QUANTISED = "int8"  # its graphs differ; the other precisions run the same graphs
PRECISIONS = ("f32", "bf16", QUANTISED)
#: All graphs; "content" only with the content CNN, "correction" only with the mask correction.
GRAPHS = ("encoder", "content", "decoder", "click_decoder", "correction")
#: What an export prints when a stage is done; the other graphs take little time.
STAGES = ("weights read", "encoder traced", "decoder traced", "encoder converted", "decoder converted")
_ALLOWED_FOLDER = "a folder that `python -m custom.export` wrote"
_COMPONENTS = ("clip_text", "modality_embedding", "clip_image", "content_cnn")
_KINDS = {"checkpoint": str, "digest": str, "precision": str, "components": dict, "modalities": list, "made_with": dict}
_KINDS |= {
    "crop_size": int,
    "clip_width": int,
    "graphs": dict,
    "left_out": list,
    "takes_clicks": bool,
    "click_tokens": bool,
}


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of ``model.json``.

    Attributes:
        checkpoint: name of the weights' file.
        digest: first 16 hexadecimal digits of that file's SHA-256.
        precision: "f32", "bf16" (the same graphs, run in bfloat16), or "int8" (the wide convolutions of content
            CNN and decoder in 8-bit integers, the rest in bfloat16).
        components: the prompt components and whether each is on.
        modalities: names in the order of their indices.
        crop_size: side of the crops that content CNN and refinement take, pixels.
        clip_width: width of CLIP's image features.
        takes_clicks: whether the weights were trained with clicks.
        click_tokens: whether clicks and masks prompt the decoder of an object that has a box.
        graphs: for each of ``GRAPHS`` that the network has, the shapes of its "inputs" and "outputs" by name; -1 if
            free, first the number of objects, then that of clicks.
        left_out: prompt components the weights were trained with and the graphs do not have, because there was no CLIP.
        made_with: versions of the packages used for the export.
    """

    checkpoint: str
    digest: str
    precision: str
    components: Mapping[str, bool]
    modalities: tuple[str, ...]
    crop_size: int
    clip_width: int
    takes_clicks: bool
    click_tokens: bool
    graphs: Mapping[str, Mapping[str, Mapping[str, list[int]]]]
    left_out: tuple[str, ...]
    made_with: Mapping[str, str]

    @property
    def uses_modality(self) -> bool:
        """Whether the network takes a modality prompt."""
        return self.components["clip_text"] or self.components["modality_embedding"]

    def checked_precision(self, precision: str | None, folder: str | PathLike[str]) -> str:
        """Return the precision to run the graphs in: the given one, by default that of the export.

        Raises:
            InputError: the graphs of this folder cannot run in it.
        """
        quantised = self.precision == QUANTISED
        allowed = (QUANTISED,) if quantised else tuple(name for name in PRECISIONS if name != QUANTISED)
        if precision not in (None, *allowed):
            raise InputError(folder, "precision", repr(precision), ", ".join(allowed))
        return precision or self.precision


def read_description(folder: str | PathLike[str]) -> Description:
    """Read ``model.json``.

    Raises:
        InputError: no such folder or file, or not of this format and version.
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise InputError(folder, "model", "no such file", _ALLOWED_FOLDER)
    content = read_json(path, _ALLOWED_FOLDER)
    found = (content.get("format"), content.get("version")) if isinstance(content, dict) else type(content).__name__
    if found != (FORMAT, VERSION):
        raise InputError(path, "format, version", found, f"{(FORMAT, VERSION)}; export the checkpoint again")
    names = [field.name for field in fields(Description)]
    missing = [name for name in names if name not in content]
    if missing:
        raise InputError(path, missing[0], "nothing", "a value")
    values = {name: content[name] for name in names}
    _check_kinds(values, path)
    return Description(**values | {name: tuple(values[name]) for name in ("modalities", "left_out")})


def _check_kinds(values: Mapping[str, Any], path: Path) -> None:
    """Check the values of ``model.json`` that are used later."""
    for name, kind in _KINDS.items():
        if not isinstance(values[name], kind):
            raise InputError(path, name, repr(values[name]), kind.__name__)
    if values["precision"] not in PRECISIONS:
        raise InputError(path, "precision", repr(values["precision"]), ", ".join(PRECISIONS))
    if not all(isinstance(values["components"].get(name), bool) for name in _COMPONENTS):
        raise InputError(path, "components", values["components"], f"true or false for {', '.join(_COMPONENTS)}")
    optional = {"content": values["components"]["content_cnn"], "click_decoder": values["takes_clicks"]}
    optional["correction"] = False  # a network may take clicks as tokens only
    for graph in GRAPHS:
        found = values["graphs"].get(graph)
        if found is None and not optional.get(graph, True):
            continue
        if not (isinstance(found, dict) and all(isinstance(found.get(side), dict) for side in ("inputs", "outputs"))):
            raise InputError(path, f"graphs.{graph}", found, "shapes of inputs and outputs by name")


def write_folder(out: str | PathLike[str], description: Description, write: Callable[[Path], None]) -> None:
    """Fill a folder with what ``write`` puts there and the description, whole or not at all.

    An exported folder of that name is replaced when the new one is complete; after an error it stays as it is. If
    several processes write the same folder, the last one wins. What a killed process left beside it is removed.

    Raises:
        InputError: the name is taken by something else, or the place cannot be written.
    """
    folder = Path(os.path.abspath(out))
    check_out(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    number = uuid.uuid4().hex[:8]  # containers that share a folder may have the same process ids
    partial, old = (folder.with_name(f".{folder.name}.{number}.{part}") for part in ("partial", "old"))
    with ExitStack() as held:
        try:
            with locked(folder.parent):
                _tidy(folder)
                partial.mkdir()
                held.enter_context(locked(partial))
            write(partial)
            content = {"format": FORMAT, "version": VERSION} | asdict(description)
            (partial / DESCRIPTION).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            for file in partial.iterdir():
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
            with locked(folder.parent):
                if folder.is_dir():
                    os.rename(folder, old)
                os.rename(partial, folder)
                sync_folder(folder.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            with locked(folder.parent):
                _tidy(folder)


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock on a folder, which one process can have at a time.

    Args:
        folder: an existing folder.
        wait: wait while another process has it.

    Yields:
        whether the lock is held: some systems and network file systems have no such lock, and without ``wait``
        another process may have it.
    """
    if fcntl is None:
        yield False
        return
    opened, held = os.open(folder, os.O_RDONLY), False
    try:
        with suppress(OSError):
            fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        yield held
    finally:
        os.close(opened)


def _tidy(folder: Path) -> None:
    """Remove what a stopped run has left beside a folder, and restore what it was about to replace."""
    name = f".{glob.escape(folder.name)}.*"
    for old in folder.parent.glob(f"{name}.old"):
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, folder)
    for partial in folder.parent.glob(f"{name}.partial"):
        with suppress(FileNotFoundError), locked(partial, wait=False) as unused:  # a run that still writes holds it
            if unused:
                shutil.rmtree(partial, ignore_errors=True)


def check_out(out: str | PathLike[str]) -> None:
    """Check that a folder is new, empty or exported, and that its place can be written.

    Raises:
        InputError: the name is taken by something else, or the place cannot be written.
    """
    folder = Path(os.path.abspath(out))
    if folder.exists() and not (folder / DESCRIPTION).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(out, "out", "something else there", "a new or empty folder, or an exported one to replace")
    place = next(parent for parent in folder.parents if parent.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise InputError(out, "out", f"{place}, which cannot be written", "a folder that can be created")
