"""The architecture as a test: rooms whose imports point down only, without circles."""

import ast
import sys
from pathlib import Path

import pytest

from tests import ROOT

PACKAGE = ROOT / "vqlib"
# from the bottom up; a room imports from rooms below it
ROOMS = (
    "quantization",
    "watching",
    "training",
    "diagnosis",
    "testing",
    "callbacks",
    "suite",
    "playground",
    "lessons",
    "cli",
)
DRAWS = {"suite", "playground", "lessons"}
SHOWING_ONLY = {"matplotlib", "seaborn", "ipywidgets", "IPython", "papermill", "nbconvert"}
ALIASES = {
    "__init__",
    "__main__",
    "usage",
    "history",
    "experiments",
}  # names at the top that scripts use
BESIDE = {"extras"}  # of no room: every room may import it, and it imports none


def files(room: str) -> list[Path]:
    place = PACKAGE / room
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


def dotted(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(file): file for file in PACKAGE.rglob("*.py")}


def imports(file: Path, *, everywhere: bool = True) -> set[str]:
    """Dotted names of the modules that a file imports, in its functions too if ``everywhere``."""
    tree = ast.parse(file.read_text())
    inside = {
        node
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef) or _type_checking(outer)
        for node in ast.walk(outer)
    }
    found = set()
    for node in ast.walk(tree):
        if node in inside and not everywhere:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module)
    return found


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def upward(room: str, names: set[str]) -> set[str]:
    """Those of ``names`` that lie in a room above ``room``."""
    above = ROOMS[ROOMS.index(room) + 1 :]
    return {name for name in names if name.startswith("vqlib.") and name.split(".")[1] in above}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle in ``graph``, {module: what it imports}; empty if there is none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := walk(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def test_every_file_has_its_room():
    top = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in PACKAGE.rglob("*.py")}
    assert top == set(ROOMS) | ALIASES | BESIDE


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down(room):
    assert not upward(room, set().union(*map(imports, files(room))))


@pytest.mark.parametrize("room", ROOMS)
def test_no_circle_inside_a_room(room):
    graph = {dotted(file): imports(file, everywhere=False) for file in files(room)}
    # a package's own front door re-exports what is inside; what is inside does not go through it
    assert not circle({name: to - {name.rpartition(".")[0]} for name, to in graph.items()})


@pytest.mark.parametrize("room", sorted(set(ROOMS) - DRAWS))
def test_only_three_rooms_draw(room):
    assert not {name.split(".")[0] for file in files(room) for name in imports(file)} & SHOWING_ONLY


def test_quantization_knows_torch_only():
    roots = {n.split(".")[0] for file in files("quantization") for n in imports(file)} - {"vqlib"}
    assert roots <= set(sys.stdlib_module_names) | {"torch"}


def test_what_every_room_may_import_imports_none():
    assert not [name for name in imports(PACKAGE / "extras.py") if name.startswith("vqlib")]


def test_the_rules_bite():
    assert upward("watching", {"vqlib.training.trainer", "torch", "vqlib.quantization.reset"})
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert not circle({"a": {"b", "c"}, "b": {"c"}})
