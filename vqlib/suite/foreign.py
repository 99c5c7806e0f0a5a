"""Notebooks outside the suite: anywhere, each by itself, with no layout demanded.

The gates are in a file of any name and the values in another, both in the suite's own format (see
`vqlib.suite.gatefile` and `vqlib.suite.profiles`); the table of a notebook is named like its file.
A notebook without a cell tagged ``parameters`` has no parameters. An entry of the gates may be
given for each profile, which is called like its file; without one the profile is called
``default``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vqlib.suite import gatefile, profiles
from vqlib.suite.errors import SuiteError
from vqlib.suite.gates import Expected
from vqlib.suite.lineup import Lineup, assemble, read_parameters

DEFAULT = "default"
EXPECTED = "expected.toml"


def expected_beside(notebooks: Sequence[Path]) -> Path:
    """The ``expected.toml`` that lies beside the notebooks, whether it exists or not.

    Raises SuiteError if they lie in several folders.
    """
    folders = dict.fromkeys(Path(path).parent for path in notebooks)
    if len(folders) > 1:
        listed = ", ".join(map(str, folders))
        raise SuiteError(f"the notebooks lie in {listed}; expected --expected FILE to say whose")
    return next(iter(folders)) / EXPECTED


def load(
    notebooks: Sequence[Path],
    expected: Path | None,
    profile: Path | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
) -> Lineup:
    """Read and check the notebooks at these paths, with their gates and their values.

    `expected` None: any record is welcome. `overrides` has the shape of a profile and wins over it.
    Tables for other notebooks in the same folders are let be. Raises SuiteError.
    """
    chosen = _chosen(notebooks)
    siblings = {
        path.stem: path for given in chosen.values() for path in _notebooks_in(given.parent)
    }
    sources = siblings | chosen
    name = DEFAULT if profile is None else profile.stem
    tables = {} if profile is None else profiles.tables_of(_there(profile, "a file of values"))
    parameters = read_parameters(sources, set(chosen), profiles.declared_loosely)
    gated = Expected(name=None)
    if expected is not None:
        _there(expected, f"a file of gates, as `vqlib expect {notebooks[0]}` writes it")
        gated = gatefile.read(expected, sources, _profile_names(name, profile, expected))
    return assemble(sources, list(chosen), parameters, gated, name, tables, overrides, foreign=True)


def _there(file: Path, what: str) -> Path:
    if not file.is_file():
        raise SuiteError(f"{file} is not there; expected {what}")
    return file


def _chosen(notebooks: Sequence[Path]) -> dict[str, Path]:
    """{stem: path}. Raises SuiteError for what is no notebook of Python's, and for equal names."""
    found: dict[str, Path] = {}
    problems = []
    for path in map(Path, notebooks):
        try:
            language = _language(profiles.read(path))
        except SuiteError as error:
            problems += error.problems
            continue
        if language != "python":
            problems.append(f"{path}: a notebook in {language}; expected one in Python")
        if found.setdefault(path.stem, path).resolve() != path.resolve():
            problems.append(
                f"{path} and {found[path.stem]} have the same name; expected one of them at a time"
            )
    if problems:
        raise SuiteError(problems)
    return found


def _language(notebook) -> str:
    about = notebook.metadata
    told = about.get("kernelspec", {}).get("language") or about.get("language_info", {}).get("name")
    return (told or "python").lower()


def _notebooks_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ipynb"))


def _profile_names(name: str, profile: Path | None, expected: Path) -> set[str]:
    """What a gate may be given for: this profile, and those whose files are at hand."""
    folders = [expected.parent, expected.parent / "profiles"] + (
        [profile.parent] if profile else []
    )
    found = {path.stem for folder in folders for path in folder.glob("*.toml")}
    return {name, DEFAULT, *found} - {expected.stem}
