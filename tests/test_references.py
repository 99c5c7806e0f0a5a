"""What the texts refer to is there: links and their anchors, names, files, commands.

The texts are the Markdown files, the notebooks, and the package's docstrings.
"""

import ast
import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

from tests import NOTEBOOKS, ROOT
from tests.test_layers import PACKAGE
from vqlib import cli
from vqlib.suite import pages

DOCUMENTS = sorted(
    path
    for folder in (".", "data", "notebooks", ".github")
    for path in (ROOT / folder).glob("*.md")
)
SOURCES = sorted(PACKAGE.rglob("*.py"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAME = re.compile(r"(?<!`)`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\([^`]*\))?`(?!`)")
# a file, or a folder with its slash; NAME stands for any name
PLACE = re.compile(r"`((?:vqlib|tests|notebooks|data)/(?![\w/]*NAME)[\w/.-]*(?:\.\w+|/))`")
COMMAND = re.compile(r"(?:^|`)vqlib ([a-z]\w*)", re.MULTILINE)
MODULE = re.compile(r"python -m (vqlib[\w.]*)")
FILES = {
    "py",
    "csv",
    "json",
    "toml",
    "lock",
    "typed",
    "yml",
    "npy",
    "bin",
    "png",
    "dat",
    "safetensors",
}
ALIASES = {"nn": "torch", "stats": "scipy", "np": "numpy", "pd": "pandas"}


def markdown(path: Path) -> str:
    """The text of a document, or of a notebook's cells of text."""
    if path.suffix == ".md":
        return path.read_text()
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def anchors(path: Path) -> set[str]:
    """What a link to a heading of this file can end in."""
    headings = re.findall(r"^#+ +(.+)$", markdown(path), flags=re.MULTILINE)
    if path.suffix == ".ipynb":
        return {pages.anchor(pages.plain(heading)) for heading in headings}
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {word.strip().replace(" ", "-") for word in words}


def broken(path: Path) -> list[str]:
    """Links of a file that lead nowhere, as far as they stay in the repository."""
    found = []
    for link in LINK.findall(markdown(path)):
        target, _, anchor = link.partition("#")
        other = path.parent / target if target else path
        if re.match(r"\w+:", link):
            continue
        missing = anchor and other.suffix in (".md", ".ipynb") and anchor not in anchors(other)
        if not other.exists() or missing:
            found.append(link)
    return found


def stored(node: ast.AST) -> set[str]:
    """Names that are defined, imported or assigned anywhere inside, attributes too."""
    found = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef):
            found.add(inner.name)
        elif isinstance(inner, ast.alias):
            found.add((inner.asname or inner.name).split(".")[0])
        elif isinstance(inner, ast.Name | ast.Attribute) and isinstance(inner.ctx, ast.Store):
            found.add(inner.id if isinstance(inner, ast.Name) else inner.attr)
    return found


def index() -> dict[str, set[str]]:
    """{module or class, by its last name: the names in it}."""
    found: dict[str, set[str]] = {}
    for path in [*SOURCES, *PACKAGE.rglob("*.pyi")]:
        tree = ast.parse(path.read_text())
        package = path.stem == "__init__"
        names = found.setdefault(path.parent.name if package else path.stem, set())
        names |= stored(tree)
        if package:
            names |= {inside.stem for inside in path.parent.iterdir()}
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).update(stored(node))
    return found


INDEX = index()
COMMANDS = cli.COMMANDS.keys()


def stale(text: str, own: set[str] = frozenset()) -> list[str]:
    """Dotted names in backticks that are neither ours nor another package's.

    ``own``: variables that the text's own code defines.
    """
    found = []
    for name in NAME.findall(text):
        *_, owner, last = parts = name.split(".")
        if last in FILES or parts[0] in own or last in INDEX.get(owner, ()):
            continue
        root = ALIASES.get(parts[0], parts[0])
        if root == "vqlib" or owner in INDEX or importlib.util.find_spec(root) is None:
            found.append(name)
    return found


@pytest.mark.parametrize("path", [*DOCUMENTS, *NOTEBOOKS], ids=lambda path: path.name)
def test_links_and_anchors_lead_somewhere(path):
    assert broken(path) == []


@pytest.mark.parametrize("path", [*DOCUMENTS, *NOTEBOOKS], ids=lambda path: path.name)
def test_names_files_and_commands_in_texts_are_there(path):
    text, own = markdown(path), set()
    if path.suffix == ".ipynb":
        code = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        own = stored(ast.parse("\n".join(code))) - INDEX.keys()
    assert stale(text, own) == []
    assert [p for p in PLACE.findall(text) if not (ROOT / p).exists()] == []
    assert set(COMMAND.findall(text)) <= COMMANDS
    assert [m for m in MODULE.findall(text) if importlib.util.find_spec(m) is None] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_names_and_files_in_the_package_s_own_texts_are_there(path):
    text = path.read_text()
    assert stale(text) == []
    assert [place for place in PLACE.findall(text) if not (ROOT / place).exists()] == []


def test_constants_that_contributors_are_sent_to_are_there():
    named = set(re.findall(r"`(_?[A-Z][A-Z_]{2,})`", (ROOT / "CONTRIBUTING.md").read_text()))
    files = re.findall(r"`((?:vqlib|tests)/[\w/]+\.py)`", (ROOT / "CONTRIBUTING.md").read_text())
    defined = set().union(*(stored(ast.parse((ROOT / file).read_text())) for file in files))
    assert len(named) > 10 and named <= defined


def test_the_rules_bite(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A *b*: c\n[x](#a-b-c) [y](#d) [z](gone.md) [w](https://example.org)")
    assert broken(page) == ["#d", "gone.md"]
    text = "`usage.perplexity` `usage.gone()` `vqlib.watch` `vqlib.gone` `torch.nn` `nowhere.x`"
    assert stale(text) == ["usage.gone", "vqlib.gone", "nowhere.x"]
    assert stale("`play.step`", {"play"}) == [] and "diagnose" in COMMANDS
