"""The pages of the project for the tests: where they lie, what they link to, and the blocks of code on them."""

from __future__ import annotations

import re
import subprocess
import textwrap
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "bundle" / "docs"
README, LABEL_README = ROOT / "README.md", ROOT / "custom" / "label_app" / "README.md"
NAMES = ("data", "training", "evaluation", "inference", "speed", "results", "safety", "extending", "faq")
PAGES = [README, *(DOCS / f"{name}.md" for name in NAMES), DOCS / "README.md", LABEL_README]

_FENCE = re.compile(r"^( *)(```+)(\w*)[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
_CODE_SPAN = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_LINK = re.compile(r"\]\(\s*<?([^)<>\s]+)>?(?:\s+\"[^\"]*\")?\s*\)|<(?:img|a)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"")
_HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$", re.MULTILINE)
_ANCHOR = re.compile(r"<a\b[^>]*?\b(?:id|name)=\"([^\"]+)\"")


@cache
def tree() -> frozenset[str]:
    """Return the files of the repository, without what git ignores, as paths from its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return frozenset(name for name in listed if name and (ROOT / name).is_file())


def with_folders(names: frozenset[str]) -> frozenset[str]:
    """Return files and every folder above them; the root is ``.``."""
    return names | {parent.as_posix() for name in names for parent in Path(name).parents}


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of one language, in the order of the page."""
    return [textwrap.dedent(body) for _, _, name, body in _FENCE.findall(text) if name == language]


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", text)


def code_spans(text: str) -> list[str]:
    """Return what stands in backquotes in the running text, each on one line."""
    return [" ".join(span.split()) for _, span in _CODE_SPAN.findall(prose(text))]


def links(text: str) -> list[str]:
    """Return the targets of links and pictures, but for those on other servers."""
    plain = _CODE_SPAN.sub("", prose(text))
    found = [first or second for first, second in _LINK.findall(plain)]
    return [target for target in found if not re.match(r"[a-z][a-z0-9+.-]*:", target)]


def anchors(text: str) -> set[str]:
    """Return the names of a page's headings as GitHub makes them, and its own ``<a id=...>``."""
    seen: dict[str, int] = {}
    names = set(_ANCHOR.findall(text))
    for heading in _HEADING.findall(prose(text)):
        words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
        count = seen[slug] = seen.get(slug, -1) + 1
        names.add(f"{slug}-{count}" if count else slug)
    return names
