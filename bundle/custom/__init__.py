"""The package ``custom`` beside the bundle; a release has the package itself in this place."""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / "custom")]

from custom.public_names import __getattr__  # noqa: F401
