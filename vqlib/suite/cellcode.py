"""What the code of a notebook says before it runs: which parameters it never reads, its imports.

Binding a parameter that is never read changes nothing. A value that papermill injects takes effect
only in code that runs after it: in a later cell, or in a function that an earlier cell defined and
that looks the name up when it is called. What counts as a read is a global name that is loaded (in
an f-string, a default or a nested function too), a name that is mentioned in a magic or a shell
line, and ``@name`` in a string, as pandas' ``query`` has it. A plain assignment on the top level
ends the search, for the value is gone then.

Code that looks names up by itself (``globals()``, ``eval``, ``%run -i``) may read any.
"""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterable, Iterator

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from vqlib.suite.profiles import TAG, tagged

INJECTED = "injected-parameters"
LOOKS_UP = {"globals", "locals", "eval", "exec", "__main__"}
ASSIGNS = (ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def unread(notebook: NotebookNode, names: Iterable[str]) -> list[str]:
    """Those of `names`, declared in the cell tagged ``parameters``, that nothing reads."""
    statements = list(_statements(notebook))
    if any(_looks_up(tree) for tree, _ in statements):
        return []
    return [name for name in names if not _is_read(name, statements)]


def read_too_early(notebook: NotebookNode, names: Iterable[str]) -> dict[str, str]:
    """{name: line} of those of `names` that the parameters cell itself reads.

    Such a line has run, with the default, before the parameter is set.
    """
    found: dict[str, str] = {}
    for tree in (tree for cell in tagged(notebook) for tree in _parsed(cell.source)):
        if isinstance(tree, ast.stmt):
            table = symtable.symtable(ast.unparse(tree), "cell", "exec")
            line = ast.unparse(tree).splitlines()[0]
            found |= {name: line for name in names if _loads(table, name)}
    return found


def imports(notebook: NotebookNode) -> set[str]:
    """The top-level names of the modules that the code cells import."""
    found = set()
    for tree, _ in _statements(notebook):
        for node in ast.walk(tree) if isinstance(tree, ast.AST) else ():
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found


def _statements(notebook: NotebookNode) -> Iterator[tuple[ast.stmt | str, bool]]:
    """Each statement of the code cells, and whether it runs after the parameters are set.

    A cell that is not Python, magics apart, comes as its text.
    """
    after = False
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", ())
        if cell.cell_type != "code" or INJECTED in tags:
            continue
        yield from ((statement, after) for statement in _parsed(cell.source))
        after = after or TAG in tags


def _parsed(source: str) -> list[ast.stmt] | list[str]:
    try:
        return ast.parse(TransformerManager().transform_cell(source)).body
    except SyntaxError:
        return [source]


def _is_read(name: str, statements: Iterable[tuple[ast.stmt | str, bool]]) -> bool:
    for tree, after in statements:
        if isinstance(tree, str):
            if after and _mentions(tree, name):
                return True
            continue
        table = symtable.symtable(ast.unparse(tree), "cell", "exec")
        if any(_loads_global(inner, name) for inner in table.get_children()):
            return True
        if after and (_loads(table, name) or _augments(tree, name) or _in_text(tree, name)):
            return True
        if after and isinstance(tree, ASSIGNS) and _assigns(table, name, tree):
            return False
    return False


def _loads(table: symtable.SymbolTable, name: str) -> bool:
    return name in table.get_identifiers() and table.lookup(name).is_referenced()


def _loads_global(table: symtable.SymbolTable, name: str) -> bool:
    """Whether the scope, or one inside it, loads `name` and means the notebook's own."""
    here = _loads(table, name) and table.lookup(name).is_global()
    return here or any(_loads_global(inner, name) for inner in table.get_children())


def _assigns(table: symtable.SymbolTable, name: str, tree: ast.stmt) -> bool:
    if isinstance(tree, ast.AnnAssign) and tree.value is None:
        return False
    symbol = table.lookup(name) if name in table.get_identifiers() else None
    return symbol is not None and (symbol.is_assigned() or symbol.is_imported())


def _augments(tree: ast.AST, name: str) -> bool:
    """``name += 1`` loads it first, which Python's symbol table does not say."""
    augmented = (node.target for node in ast.walk(tree) if isinstance(node, ast.AugAssign))
    return any(isinstance(target, ast.Name) and target.id == name for target in augmented)


def _in_text(tree: ast.AST, name: str) -> bool:
    """In a string: ``@name`` anywhere, and any mention in what a magic or the shell is given."""
    magic = any(isinstance(node, ast.Name) and node.id == "get_ipython" for node in ast.walk(tree))
    return any(
        re.search(rf"@{name}\b", text) or (magic and _mentions(text, name))
        for text in _strings(tree)
    )


def _strings(tree: ast.AST) -> Iterator[str]:
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return (value for value in constants if isinstance(value, str))


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


def _looks_up(tree: ast.stmt | str) -> bool:
    """Whether the code can read names that are not written in it."""
    if isinstance(tree, str):
        return any(_mentions(tree, word) for word in LOOKS_UP)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in LOOKS_UP:
            return True
        if isinstance(node, ast.alias) and node.name in LOOKS_UP:
            return True
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("vars", "dir") and not node.args:
                return True
            if called == "get_ipython().run_line_magic" and _runs_inside(node):
                return True
    return any(_mentions(text, w) for text in _magic_text(tree) for w in LOOKS_UP)


def _runs_inside(call: ast.Call) -> bool:
    """``%run -i script.py``: the script sees the notebook's names."""
    texts = list(_strings(call))
    return texts[:1] == ["run"] and any(re.search(r"(^|\s)-\w*i", text) for text in texts[1:])


def _magic_text(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("get_ipython()"):
            yield from _strings(node)
