"""The suite's folder, read and checked as a whole before anything runs.

::

    notebooks/NN_name.ipynb       each with one cell tagged `parameters` (see vqlib.suite.profiles)
    notebooks/profiles/NAME.toml  the parameters' values          (see vqlib.suite.profiles)
    notebooks/expected.toml       records, gates, planted faults  (see vqlib.suite.gatefile)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vqlib.quantization.names import near
from vqlib.suite import cellcode, gatefile, profiles
from vqlib.suite.errors import SuiteError
from vqlib.suite.executing import Plan
from vqlib.suite.gates import Expected
from vqlib.training import places

SET = "overrides (--set)"  # what wins over a profile, in messages
PATTERN = "[0-9][0-9]_*.ipynb"


@dataclass(frozen=True)
class Lineup:
    """Notebooks, read and checked: what runs with which values, and what must result.

    `foreign`: they are not the suite's, but lie anywhere (see `vqlib.suite.foreign`).
    """

    sources: dict[str, Path]
    values: dict[str, dict[str, object]]
    expected: Expected
    profile: str
    selected: list[str]
    foreign: bool = False

    def plans(self) -> list[Plan]:
        """What a plain run executes."""
        return [self.plan(name, name, self.values[name]) for name in self.selected]

    def plan(
        self,
        name: str,
        notebook: str,
        values: Mapping[str, object],
        environ: Mapping[str, str] | None = None,
    ) -> Plan:
        """To execute `notebook` with `values`, called `name` in the output."""
        source = self.sources[notebook]
        return Plan(name, source, values, source.parent if self.foreign else None, environ or {})


def directory_of(notebooks: Sequence[Path] | None, directory: Path | None = None) -> Path:
    """The folder of the suite: as given, else that of the notebooks, else ``notebooks`` here,
    else ``notebooks`` beside the package."""
    if directory is not None:
        return Path(directory)
    if notebooks:
        return Path(notebooks[0]).parent
    here = Path("notebooks")
    return here if here.is_dir() else places.PARENT / "notebooks"


def names(directory: Path | None = None) -> dict[str, Path]:
    """The suite's notebooks: stem -> path, in order. Raises SuiteError if there is none."""
    directory = directory_of(None, directory)
    found = {path.stem: path for path in sorted(directory.glob(PATTERN))}
    if not found:
        raise SuiteError(f"{directory}: there is no notebook named {PATTERN} here")
    return found


def find(wanted: Sequence[str], directory: Path | None = None) -> list[Path]:
    """The notebooks a person means by ``01``, by a stem or by a path.

    Raises SuiteError naming those that do not exist, and those that do.
    """
    known = names(directory)
    found, problems = [], []
    for name in wanted:
        matches = _matches(name, known)
        if len(matches) == 1:
            found += [path for path in matches if path not in found]
        else:
            which = "several notebooks are" if matches else "there is no notebook"
            hint = _hint(Path(name).stem, known)
            problems.append(f"{which} `{name}`; available: {', '.join(known)}{hint}")
    if problems:
        raise SuiteError(problems)
    return found


def is_of_a_suite(name: str) -> bool:
    """Whether `name` means a notebook of a suite: it is no path, or its folder has profiles."""
    path = Path(name)
    if path.suffix != ".ipynb":
        return True
    folder = directory_of([path] if path.exists() else None)
    inside = (folder / path.name).exists() and path.match(PATTERN)
    return inside and bool(profiles.available(folder))


def _matches(name: str, known: Mapping[str, Path]) -> list[Path]:
    path = Path(name)
    if path.suffix == ".ipynb":
        found = known.get(path.stem)
        # a path elsewhere is another notebook, even if it is called the same
        here = found and (path.name == name or path.resolve() == found.resolve())
        return [found] if here else []
    if name in known:
        return [known[name]]
    return [path for stem, path in known.items() if stem.split("_")[0] == name]


def _hint(stem: str, known: Mapping[str, Path]) -> str:
    hint = near(stem, known)
    return hint if "mean" in hint else ""


def load_expected(directory: Path | None = None) -> Expected:
    """expected.toml of the suite, checked. Raises SuiteError."""
    directory = directory_of(None, directory)
    path = directory / "expected.toml"
    return gatefile.read(path, names(directory), profiles.available(directory))


def load(
    notebooks: Sequence[Path] | None,
    profile: str,
    directory: Path | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
) -> Lineup:
    """Read and check the whole folder for a run of `notebooks` (None: all).

    `overrides` has the shape of a profile and wins over it. Raises SuiteError listing all that
    is wrong in the first kind of file that has a mistake.
    """
    directory = directory_of(notebooks, directory)
    sources = names(directory)
    selected = list(sources) if notebooks is None else [Path(path).stem for path in notebooks]
    unknown = [name for name in selected if name not in sources]
    if unknown:
        raise SuiteError(f"there is no notebook `{n}`{near(n, sources)}" for n in unknown)
    tables = profiles.load(directory, profile)
    parameters = read_parameters(sources, set(selected), profiles.declared)
    expected = load_expected(directory)
    return assemble(sources, selected, parameters, expected, profile, tables, overrides)


def assemble(
    sources: Mapping[str, Path],
    selected: Sequence[str],
    parameters: Mapping[str, Mapping[str, object]],
    expected: Expected,
    profile: str,
    tables: Mapping[str, Mapping[str, object]],
    overrides: Mapping[str, Mapping[str, object]] | None,
    *,
    foreign: bool = False,
) -> Lineup:
    """What was read, put together: the profile's `tables`, `overrides` and controls are checked
    against the `parameters` that the notebooks declare and read. Raises SuiteError."""

    def resolve(given, source):
        values = profiles.resolve(given, parameters, source=source, selected=set(selected))
        check_reads({sources[name]: values[name] for name in selected}, source)
        return values

    values = resolve(tables, f"profile {profile}")
    for name, given in resolve(overrides or {}, SET).items():
        values[name].update(given)
    for control in expected.controls:
        planted = {control.notebook: control.parameters}
        resolve(planted, f"{expected.name}: control {control.name}")
    return Lineup(dict(sources), values, expected, profile, list(selected), foreign)


def check_reads(bound: Mapping[Path, Mapping[str, object]], source: str) -> None:
    """Raises SuiteError naming every bound parameter that its notebook never reads, or reads
    before it is set."""
    problems = []
    for path, values in bound.items():
        if values:
            notebook, where = profiles.read(path), f"{source}: {path.stem}:"
            problems += [
                f"{where} `{name}` is set, but nothing after the parameters cell reads it; "
                "expected a parameter that the notebook uses"
                for name in cellcode.unread(notebook, values)
            ]
            problems += [
                f"{where} `{name}` is set, but `{line}` in the parameters cell has read it before; "
                "expected that line in a later cell"
                for name, line in cellcode.read_too_early(notebook, values).items()
            ]
    if problems:
        raise SuiteError(problems)


def read_parameters(
    sources: Mapping[str, Path], selected: set[str], declared: Callable[[Path], dict[str, object]]
) -> dict[str, dict[str, object]]:
    """What each notebook declares; one that is not selected may still be half-written."""
    found, problems = {}, []
    for name, path in sources.items():
        found[name] = {}
        try:
            found[name] = declared(path)
        except SuiteError as error:
            problems += error.problems if name in selected else []
    if problems:
        raise SuiteError(problems)
    return found
