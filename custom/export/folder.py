"""A folder with an exported network: ``encoder`` and ``decoder`` (.xml and .bin), and ``model.json`` about them."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

from custom.errors import InputError
from custom.files import sync_folder
from custom.json_files import read_json

FORMAT, VERSION = "mcp-medsam-openvino", 1
DESCRIPTION = "model.json"
QUANTISED = "int8"  # the graphs themselves differ; the others are ways to run the same graphs
PRECISIONS = ("f32", "bf16", QUANTISED)
_ALLOWED_FOLDER = "a folder that `python -m custom.export` wrote"
_GRAPHS, _COMPONENTS = ("encoder", "decoder"), ("clip_text", "modality_embedding", "clip_image", "content_cnn")
_KINDS = {"checkpoint": str, "digest": str, "precision": str, "components": dict, "modalities": list, "made_with": dict}
_KINDS |= {"crop_size": int, "clip_width": int, "graphs": dict}


@dataclass(frozen=True, kw_only=True)
class Description:
    """What ``model.json`` tells.

    Attributes:
        checkpoint: name of the weights' file.
        digest: first 16 hexadecimal digits of that file's SHA-256.
        precision: "f32", "bf16" (the same graphs, run in bfloat16), or "int8" (the decoder's convolutions in 8-bit
            integers, the rest in bfloat16).
        components: the prompt components and whether each is on.
        modalities: names in the order of their indices.
        crop_size: side of the crops that content CNN and refinement take, pixels.
        clip_width: width of CLIP's image features.
        graphs: for "encoder" and "decoder" the shapes of their "inputs" and "outputs" by name, -1 where free.
        made_with: versions of the packages that made it.
    """

    checkpoint: str
    digest: str
    precision: str
    components: Mapping[str, bool]
    modalities: tuple[str, ...]
    crop_size: int
    clip_width: int
    graphs: Mapping[str, Mapping[str, Mapping[str, list[int]]]]
    made_with: Mapping[str, str]

    @property
    def uses_modality(self) -> bool:
        """Whether a modality prompts the network."""
        return self.components["clip_text"] or self.components["modality_embedding"]


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
    return Description(**values | {"modalities": tuple(values["modalities"])})


def _check_kinds(values: Mapping[str, Any], path: Path) -> None:
    """Check the values of ``model.json`` as far as they are asked for later."""
    for name, kind in _KINDS.items():
        if not isinstance(values[name], kind):
            raise InputError(path, name, repr(values[name]), kind.__name__)
    if values["precision"] not in PRECISIONS:
        raise InputError(path, "precision", repr(values["precision"]), ", ".join(PRECISIONS))
    if not all(isinstance(values["components"].get(name), bool) for name in _COMPONENTS):
        raise InputError(path, "components", values["components"], f"true or false for {', '.join(_COMPONENTS)}")
    for graph in _GRAPHS:
        told = values["graphs"].get(graph)
        if not (isinstance(told, dict) and all(isinstance(told.get(side), dict) for side in ("inputs", "outputs"))):
            raise InputError(path, f"graphs.{graph}", told, "shapes of inputs and outputs by name")


def write_folder(out: str | PathLike[str], description: Description, write: Callable[[Path], None]) -> None:
    """Fill a folder with what ``write`` puts there and the description, whole or not at all.

    An exported folder of that name is replaced when the new one is complete; after an error it stays as it is. What a
    run that was killed has left beside it is removed.

    Raises:
        InputError: the name is taken by something else.
    """
    folder = Path(os.path.abspath(out))
    check_out(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _tidy(folder)
    partial, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{part}") for part in ("partial", "old"))
    try:
        partial.mkdir()
        write(partial)
        content = {"format": FORMAT, "version": VERSION} | asdict(description)
        (partial / DESCRIPTION).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        for file in partial.iterdir():
            with file.open("rb+") as written:
                os.fsync(written.fileno())
        if folder.is_dir():
            os.rename(folder, old)
        os.rename(partial, folder)
        sync_folder(folder.parent)
    finally:
        _tidy(folder)


def _tidy(folder: Path) -> None:
    """Remove what a run has left beside a folder when it was stopped, and put back what it was about to replace."""
    name = f".{glob.escape(folder.name)}.*"
    for old in folder.parent.glob(f"{name}.old"):
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, folder)
    for partial in folder.parent.glob(f"{name}.partial"):
        shutil.rmtree(partial, ignore_errors=True)


def check_out(out: str | PathLike[str]) -> None:
    """Refuse to replace anything but an exported or an empty folder.

    Raises:
        InputError: the name is taken by something else.
    """
    folder = Path(out)
    if folder.is_dir() and not any(folder.iterdir()) or not folder.exists():
        return
    if not (folder / DESCRIPTION).is_file():
        raise InputError(folder, "out", "something else there", "a new or empty folder, or an exported one to replace")
