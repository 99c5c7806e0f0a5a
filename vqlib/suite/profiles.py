"""Which parameters a notebook declares, and which values a profile gives them.

A notebook declares its parameters in exactly one cell tagged ``parameters``; the cell holds
nothing but ``name = literal`` lines, because values derived there would go stale once papermill
injects others. A profile, ``notebooks/profiles/NAME.toml``, gives values::

    [common]                  # for every notebook that declares the name
    seed = 0

    [01_reproduce_collapse]   # this notebook only; wins over [common]
    steps = 200

Every name in a profile must be declared, and every value must be of the declared default's type.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import nbformat

from vqlib.quantization.names import near
from vqlib.suite.errors import SuiteError, read_toml

COMMON = "common"
TAG = "parameters"


def declared(path: Path) -> dict[str, object]:
    """The parameters of the notebook at `path`: name -> default, in order.

    Raises SuiteError if the notebook cannot be read, does not have exactly one cell tagged
    ``parameters``, or if that cell holds anything but assignments of literals.
    """
    cells = tagged(read(path))
    if len(cells) != 1:
        raise SuiteError(
            f"{path.name}: expected exactly one code cell tagged `{TAG}`, found {len(cells)}"
        )
    return _assignments(path.name, cells[0].source)


def declared_loosely(path: Path) -> dict[str, object]:
    """As `declared`, of a notebook that owes us nothing: no such cell, or any code in it.

    A parameter whose default is computed has the default None here, which any value fits.
    """
    cells = tagged(read(path))
    if len(cells) > 1:
        raise SuiteError(
            f"{path.name}: expected at most one code cell tagged `{TAG}`, found {len(cells)}"
        )
    found: dict[str, object] = {}
    for node in _parsed(path.name, cells[0].source).body if cells else ():
        name = _target(node)
        if name is not None:
            try:
                found[name] = ast.literal_eval(node.value)
            except (ValueError, TypeError):
                found[name] = None
    return found


def read(path: Path) -> nbformat.NotebookNode:
    """The notebook at `path`. Raises SuiteError if it is missing or cannot be read."""
    if path.exists() and not path.is_file():  # a pipe would be waited for without end
        raise SuiteError(f"{path}: not a file")
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise SuiteError(f"{path}: there is no such file") from None
    except Exception as error:  # nbformat lets many kinds through; all mean the same here
        raise SuiteError(f"{path.name}: not a readable notebook: {error}") from None


def tagged(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells that declare parameters."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and TAG in cell.metadata.get("tags", ())
    ]


def _parsed(notebook: str, source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        where = f"{notebook}: the cell tagged `{TAG}`"
        raise SuiteError(f"{where}: line {error.lineno} is not Python: {error.msg}") from None


def _assignments(notebook: str, source: str) -> dict[str, object]:
    where = f"{notebook}: the cell tagged `{TAG}`"
    found: dict[str, object] = {}
    problems = []
    for node in _parsed(notebook, source).body:
        line = f"line {node.lineno}, `{ast.unparse(node).splitlines()[0]}`"
        name = _target(node)
        if name is None:
            problems.append(f"{where}: {line}: expected only lines like `name = 3`")
        elif name in found:
            problems.append(f"{where}: {line}: `{name}` is assigned twice")
        else:
            try:
                found[name] = ast.literal_eval(node.value)
            except (ValueError, TypeError):
                problems.append(f"{where}: {line}: `{name}` must be a literal, not computed")
                found[name] = None
    if problems:
        raise SuiteError(problems)
    return found


def _target(node: ast.stmt) -> str | None:
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        target = node.target
    else:
        return None
    return target.id if isinstance(target, ast.Name) else None


def available(directory: Path) -> list[str]:
    """Names of the profiles in ``directory/profiles``."""
    return sorted(path.stem for path in (directory / "profiles").glob("*.toml"))


def load(directory: Path, profile: str) -> dict[str, dict[str, object]]:
    """The tables of a profile, unchecked against notebooks (`resolve` does that).

    Raises SuiteError if there is no such profile, or if it holds anything but tables.
    """
    if profile not in available(directory):
        raise SuiteError(f"there is no profile `{profile}`{near(profile, available(directory))}")
    return tables_of(directory / "profiles" / f"{profile}.toml")


def tables_of(path: Path) -> dict[str, dict[str, object]]:
    """The tables of a profile's file. Raises SuiteError if it holds anything else."""
    tables = read_toml(path)
    loose = [name for name, table in tables.items() if not isinstance(table, dict)]
    if loose:
        raise SuiteError(
            f"profile {path.stem}: `{name}` is outside a table; expected [{COMMON}] or a "
            "notebook's name above it"
            for name in loose
        )
    return tables


def resolve(
    tables: Mapping[str, Mapping[str, object]],
    parameters: Mapping[str, Mapping[str, object]],
    *,
    source: str,
    selected: set[str] | None = None,
) -> dict[str, dict[str, object]]:
    """The values that `tables` give each notebook: notebook -> name -> value.

    `parameters` holds what each notebook declares (see `declared`), `source` names the tables
    in messages. Raises SuiteError listing every table for a notebook that does not exist, every
    name that is not declared, and every value of another type than the default's.
    With `selected`, a wrong value for another notebook is not reported.
    """
    problems = []
    values: dict[str, dict[str, object]] = {notebook: {} for notebook in parameters}
    for table, given in tables.items():
        if table == COMMON:
            problems += _apply_common(given, parameters, values, source)
        elif table not in parameters:
            problems.append(f"{source}: there is no notebook `{table}`{near(table, parameters)}")
        elif selected is None or table in selected:
            problems += _apply(table, given, parameters[table], values[table], source)
    # a notebook's own value wins, in any order of the tables
    for notebook, given in tables.items():
        if notebook in values:
            values[notebook].update(given)
    if problems:
        raise SuiteError(problems)
    return values


def _apply_common(given, parameters, values, source) -> list[str]:
    problems = []
    for name, value in given.items():
        takers = [notebook for notebook, names in parameters.items() if name in names]
        if not takers:
            known = {name for names in parameters.values() for name in names}
            problems.append(
                f"{source}: `{name}` is set, but no notebook declares it{near(name, known)}"
            )
        for notebook in takers:
            problems += _apply(
                notebook, {name: value}, parameters[notebook], values[notebook], source
            )
    return problems


def _apply(notebook, given, names, values, source) -> list[str]:
    problems = []
    for name, value in given.items():
        if name not in names:
            problems.append(
                f"{source}: {notebook} declares no parameter `{name}`{near(name, names)}"
            )
        elif not _fits(value, names[name]):
            problems.append(
                f"{source}: {notebook}: `{name}` = {value!r} is {_kind(value)}; expected "
                f"{_kind(names[name])}, like its default {names[name]!r}"
            )
        else:
            values[name] = value
    return problems


def _fits(value, default) -> bool:
    if not _literal(value):
        return False
    if default is None or type(value) is type(default):
        return True
    if isinstance(default, float) and type(value) is int:
        return True
    return isinstance(default, tuple) and isinstance(value, list)


def _literal(value) -> bool:
    """TOML also knows dates and times, which no parameters cell can hold."""
    if isinstance(value, dict):
        return all(map(_literal, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_literal, value))
    return value is None or isinstance(value, str | bool | int | float)


def _kind(value) -> str:
    name = type(value).__name__
    return ("an " if name[0] in "aeiou" else "a ") + name
