"""The pages: they are there, short where they have to be, in plain words, and no link is dead wherever they travel."""

import ast
import io
import json
import posixpath
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from custom.package import NAME, write_zip
from tests.pages import DOCS, PAGES, README, ROOT, anchors, links, tree, with_folders

HERE = Path(__file__).resolve()
WORDS_OF_TEXT = (".py", ".md", ".json", ".txt", ".toml", ".ipynb", ".conf")
#: How often "told" may stand in code, pages and configs: each one left should mean that somebody said something.
TOLD = 20
#: What no reader understood at once.
FORBIDDEN = {
    "pictures of other makes": r"pictures of other makes it has not been tried on",
    "each next slice prompted": r"each next slice prompted by the mask before and then once more",
    "leave ... away": r"\bleav(?:e|es|ing)\b(?! (?:on|if)_)(?: \S+){0,6}? away\b",
    "twice the object": r"a box drawn a few pixels too large is twice the object",
    "untold the weights reach": r"untold the weights reach",
    "what bandit tells": r"what bandit tells, answered",
    "overlapping where they overlap": r"overlapping where they overlap",
    "so many pixels": r"so many pixels|at least so many\b",
    "let the network guess": r"let the network guess now and then",
    "nothing unless": r"allowed: nothing unless freeze_image_encoder|nothing unless freeze_image_encoder is on",
}


def texts():
    """Yield every text file of the repository but this one."""
    for name in sorted(tree()):
        if name.endswith(WORDS_OF_TEXT) and ROOT / name != HERE:
            yield name, (ROOT / name).read_text(encoding="utf-8")


def dead(pages, names):
    """Return the links of some pages that lead nowhere; ``pages`` is path -> text, ``names`` what is there."""
    found = []
    for path, text in pages.items():
        for target in links(text):
            file, _, anchor = target.partition("#")
            place = posixpath.normpath(posixpath.join(posixpath.dirname(path), file)) if file else path
            if place not in names:
                found.append(f"{path}: {target}")
            elif anchor and place in pages and anchor not in anchors(pages[place]):
                found.append(f"{path}: {target} (no such heading)")
    return found


def markdown(path):
    """Return a page's text; of a notebook that of its Markdown cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Name -> bytes of the release zip, without its top folder; the weights are some bytes."""
    bundle = tmp_path_factory.mktemp("bundle")
    shutil.copytree(ROOT / "bundle", bundle, dirs_exist_ok=True, ignore=shutil.ignore_patterns("models", "eval"))
    (bundle / "models").mkdir()
    (bundle / "models" / "model.pt").write_bytes(b"weights")
    content = io.BytesIO()
    write_zip(content, bundle)
    with zipfile.ZipFile(content) as archive:
        return {name.removeprefix(f"{NAME}/"): archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_page_is_there_and_linked(page):
    assert page.is_file()
    linked = {(README.parent / target.partition("#")[0]).resolve() for target in links(README.read_text("utf-8"))}
    assert page in {README, *linked}


@pytest.mark.parametrize("notebook", sorted(DOCS.rglob("*.ipynb")), ids=lambda notebook: notebook.stem)
def test_every_notebook_is_linked(notebook):
    assert notebook.relative_to(ROOT).as_posix() in links(README.read_text("utf-8"))
    assert any(notebook.relative_to(DOCS).as_posix() in links(page.read_text("utf-8")) for page in DOCS.glob("*.md"))


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent == DOCS], ids=lambda page: page.stem)
def test_a_page_has_one_title(page):
    outside = re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^# ", outside, re.MULTILINE)) == 1 and outside.startswith("# ")


def test_no_page_waits_for_something():
    assert [page.name for page in PAGES if page.is_file() and "TODO" in page.read_text("utf-8")] == []


def test_no_dead_link_in_the_repository():
    notebooks = sorted(DOCS.rglob("*.ipynb"))
    pages = {page.relative_to(ROOT).as_posix(): markdown(page) for page in [*PAGES, *notebooks] if page.is_file()}
    assert dead(pages, with_folders(tree())) == []


def test_no_dead_link_in_the_release(release):
    pages = {name: content.decode() for name, content in release.items() if name.endswith(".md")}
    assert "docs/README.md" in pages
    assert dead(pages, with_folders(frozenset(release))) == []


def documents():
    """Return the pages, notebooks and pictures below ``bundle/docs``."""
    kinds = (".md", ".ipynb", ".png", ".txt")
    return {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*") if path.suffix in kinds}


def test_pages_notebooks_and_pictures_are_in_the_release(release):
    assert documents() <= {name.removeprefix("docs/") for name in release}


def test_pages_notebooks_and_pictures_are_in_the_installed_package():
    (parts,) = (
        ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "setup.py").read_text("utf-8")).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "PARTS"
    )
    patterns = next(patterns for folder, _, patterns in parts if folder == "bundle")
    taken = {path for pattern in patterns for path in (ROOT / "bundle").glob(pattern)}
    assert documents() <= {path.relative_to(DOCS).as_posix() for path in taken if path.is_relative_to(DOCS)}


def test_readme_takes_five_minutes():
    text = README.read_text("utf-8")
    lines = text.splitlines()
    assert len(lines) <= 150
    assert len(text.split()) <= 1300
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("phrase", FORBIDDEN)
def test_words_nobody_understood_are_gone(phrase):
    pattern = re.compile(FORBIDDEN[phrase], re.IGNORECASE)
    found = [name for name, text in texts() if pattern.search(re.sub(r"[\s#*>]+", " ", text))]
    assert found == []


def test_told_is_rare():
    found = {name: len(re.findall(r"\btold\b", text, re.IGNORECASE)) for name, text in texts()}
    counted = {name: count for name, count in found.items() if count and name.endswith((".py", ".md", ".json"))}
    assert sum(counted.values()) <= TOLD, counted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](b.md) and `[c](d.md)`", ["b.md"]),
        ("![x](p.png) [y](https://a.b/c) [z](#end)", ["p.png", "#end"]),
        ('```bash\n[a](b.md)\n```\n<img src="q.png" width="9"> [m](mailto:a@b)', ["q.png"]),
    ],
)
def test_links_are_found(text, expected):
    assert links(text) == expected


def test_anchors_are_those_of_github():
    text = '# A `b.c`, d?\n## Same\n## Same\n```\n# no heading\n```\n### [Link](x.md): 3D, x/y/z\n<a id="own"></a>'
    assert anchors(text) == {"a-bc-d", "same", "same-1", "link-3d-xyz", "own"}
