"""The architecture as a test: imports point down only, and `import vqlib` stays cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "vqlib"

# from the bottom up; a module may import from layers below its own, and beside it
LAYERS = (
    ("numbers", {"ranks", "usage", "reset", "quantizer", "geometry", "interventions",
                 "faults"}),
    ("things", {"model", "data", "folders", "formats", "config", "guide", "process", "records",
                "strict", "variants"}),
    ("running", {"adapters", "peers", "history", "checkpoints", "runs", "training", "experiments",
                 "downstream", "runstore", "tracking", "watched", "watching", "causes",
                 "effects", "world"}),
    ("judging", {"findings", "cards", "diagnosis", "audit", "trials"}),
    ("showing", {"plots", "cycles", "decisions", "galleries", "lessons", "playground"}),
    ("outside", {"suite", "cli", "printed", "page"}),
)  # fmt: skip
HEIGHT = {module: height for height, (_, modules) in enumerate(LAYERS) for module in modules}
SHOWING_ONLY = {"matplotlib", "seaborn", "ipywidgets", "IPython", "papermill", "nbconvert"}


def modules() -> list[str]:
    return sorted({p.relative_to(PACKAGE).parts[0].removesuffix(".py")
                   for p in PACKAGE.rglob("*.py")} - {"__init__"})  # fmt: skip


def imported(module: str) -> set[str]:
    """Dotted names that a module's files import, wherever in the file."""
    place = PACKAGE / module
    files = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module == "vqlib":
                found |= {f"vqlib.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module)
    return found


def test_every_module_has_its_layer():
    assert set(modules()) == set(HEIGHT)


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module):
    ours = {name.split(".")[1] for name in imported(module) if name.startswith("vqlib.")}
    above = {other for other in ours & set(HEIGHT) if HEIGHT[other] > HEIGHT[module]}
    assert not above


@pytest.mark.parametrize("module", modules())
def test_only_the_upper_layers_draw(module):
    outside = {name.split(".")[0] for name in imported(module)}
    if HEIGHT[module] < HEIGHT["plots"]:
        assert not outside & SHOWING_ONLY
    if "seaborn" in outside:
        assert module == "plots"


@pytest.mark.parametrize("module", sorted(LAYERS[0][1]))
def test_the_numbers_know_torch_only(module):
    outside = {name.split(".")[0] for name in imported(module)} - {"vqlib"}
    assert outside <= set(sys.stdlib_module_names) | {"torch"}


def test_a_module_holds_one_idea():
    long = {str(p.relative_to(PACKAGE)): n for p in PACKAGE.rglob("*.py")
            if (n := len(p.read_text().splitlines())) > 320}  # fmt: skip
    assert not long


def test_importing_the_package_draws_in_nothing_that_draws():
    code = "import sys, vqlib; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & (SHOWING_ONLY | {"sklearn", "skimage", "joblib"})
