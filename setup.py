"""Install under a name of its own: ``custom`` becomes ``mcp_medsam``, ``data_prep`` becomes ``mcp_medsam.data_prep``.

Every bundle may bring a package named ``custom``, so an installed one of that name would hide theirs. The bundle's
configurations and pages come along as ``mcp_medsam/bundle``.

The text is renamed because relative imports would not be enough: ``data_prep`` imports ``custom``, which lies beside
it in the repository but around it when installed, and MONAI Label loads its app's main file outside of any package.
The names in configurations, and the commands in help and error messages, would need renaming all the same.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

NAME = "mcp_medsam"
# Source folder, its place in the package, and what is taken of it.
PARTS = (
    ("custom", ".", ("**/*.py", "py.typed", "label_app/README.md", "label_app/requirements.txt")),
    ("data_prep", "data_prep", ("**/*.py",)),
    (
        "bundle",
        "bundle",
        (
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
        ),
    ),
)
LEFT_OUT = {Path("custom/package.py")}  # builds the release of a repository


def renamed(text: str) -> str:
    """Return a source or configuration text with the names of the installed package.

    Example:
        >>> renamed("from custom.errors import InputError  # python -m data_prep check")
        'from mcp_medsam.errors import InputError  # python -m mcp_medsam.data_prep check'
    """
    text = re.sub(r"\bcustom(?=\.[a-z_])|(?<=from )custom(?= import)", NAME, text)
    return re.sub(r"(?<![\w./-])data_prep(?![\w/-])", f"{NAME}.data_prep", text)


class Renamed(build_py):
    """Copy the parts, renamed."""

    def run(self) -> None:
        """Fill the build folder."""
        root, target = Path(__file__).resolve().parent, Path(self.build_lib) / NAME
        shutil.rmtree(target, ignore_errors=True)  # files of an earlier build would be installed too
        for folder, place, patterns in PARTS:
            for path in (path for pattern in patterns for path in (root / folder).glob(pattern)):
                if path.relative_to(root) in LEFT_OUT or path.is_relative_to(root / "bundle" / "custom"):
                    continue
                copy = target / place / path.relative_to(root / folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                if path.suffix in (".py", ".json", ".ipynb"):
                    copy.write_text(renamed(path.read_text(encoding="utf-8")), encoding="utf-8")
                else:
                    copy.write_bytes(path.read_bytes())


def requirements() -> list[str]:
    """Return what requirements.txt names above the line "# tests"."""
    lines = Path("requirements.txt").read_text(encoding="utf-8").partition("# tests\n")[0].splitlines()
    return [requirement for requirement in (line.partition("#")[0].strip() for line in lines) if requirement]


setup(
    version=json.loads(Path("bundle/configs/metadata.json").read_text(encoding="utf-8"))["version"],
    packages=[NAME],
    package_dir={NAME: "custom"},
    install_requires=requirements(),
    cmdclass={"build_py": Renamed},
)
