"""Build the release of the bundle: ``python -m custom.package --out DIR`` writes ``mcp_medsam_v<version>.zip``.

The zip is what ``monai.bundle.download`` and ``load`` take: one folder ``mcp_medsam`` with the bundle and, in place of
the small ``bundle/custom``, the package itself; ``data_prep`` lies beside it. The same files give the same bytes on any
day.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from custom.atomic_write import write_whole
from custom.bundle_folder import BUNDLE
from custom.command_line import run
from custom.errors import InputError

NAME = "mcp_medsam"
_PACKAGE = Path(__file__).resolve().parent
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold: dates would make two builds differ
# Named one by one, so that no cache, log or data set gets in; setup.py names the same.
_PARTS = (
    "LICENSE",
    "configs/**/*.json",
    "configs/*.conf",
    "docs/*.md",
    "docs/*.png",
    "docs/*.svg",
    "docs/*.txt",
    "docs/notebooks/*.ipynb",
    "docs/results/*.csv",
    "models/model.pt",
)
_CODE = (
    ("custom", "*.py"),
    ("custom", "py.typed"),
    ("custom", "label_app/README.md"),
    ("custom", "label_app/requirements.txt"),
    ("data_prep", "*.py"),
)


def build(out: str, *, bundle: str | None = None) -> None:
    """Build the release zip.

    Args:
        out: folder for the zip, made if missing.
        bundle: another bundle folder than the repository's, e.g. one with weights just trained.

    Raises:
        InputError: the bundle has no metadata, no version or no weights, or ``out`` cannot be written.
    """
    source = BUNDLE if bundle is None else Path(str(bundle))
    version = _version(source / "configs" / "metadata.json")
    if not (source / "models" / "model.pt").is_file():
        raise InputError(source, "models/model.pt", "no file", "the weights of the release")
    path = Path(str(out)) / f"{NAME}_v{version}.zip"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        size = write_whole(path, lambda file: write_zip(file, source))
    except OSError as error:
        allowed = "a folder that can be written, with room left"
        raise InputError(path, "out", error.strerror or error, allowed) from error
    print(f"{path}: {size / 1e6:.1f} MB")


def write_zip(file: object, bundle: Path) -> None:
    """Write the release of a bundle folder into an open binary file.

    Raises:
        InputError: a file cannot be read.
        OSError: the zip cannot be written.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, name in sorted(_files(bundle), key=lambda pair: pair[1]):
            entry = zipfile.ZipInfo(f"{NAME}/{name}", _DATE)
            entry.external_attr = 0o100644 << 16  # a plain file, whatever the builder's umask was
            entry.create_system = 3
            archive.writestr(entry, _content(path), zipfile.ZIP_DEFLATED, 9)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a file that can be read") from error


def _files(bundle: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file and its name below the release's folder."""
    for pattern in _PARTS:
        for path in bundle.glob(pattern):
            if path.is_file():
                yield path, path.relative_to(bundle).as_posix()
    for folder, pattern in _CODE:
        root = _PACKAGE.parent / folder
        for path in root.rglob(pattern):
            yield path, f"{folder}/{path.relative_to(root).as_posix()}"


def _version(metadata: Path) -> str:
    try:
        version = json.loads(metadata.read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(metadata, "version", f"nothing ({error})", "the version of the release") from error
    if not isinstance(version, str) or not version.replace(".", "").isalnum():
        raise InputError(metadata, "version", repr(version), "text such as 0.1.0")
    return version


def main() -> None:
    """Run the command line."""
    run(build, name="python -m custom.package")


if __name__ == "__main__":
    main()
