"""No private name of a dependency is used or patched but those listed here, each with its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "ablate"
# File below ablate/ and private name -> why there is no public way.
ALLOWED: dict[tuple[str, str], str] = {}
# Names with an underscore that Python documents for everybody's use.
DOCUMENTED = {"_asdict", "_fields", "_make", "_replace", "_exit"}


def is_private(name: str) -> bool:
    """Whether a name is private by Python's convention; dunder names belong to the language."""
    dunder = name.startswith("__") and name.endswith("__")
    return name.startswith("_") and not dunder and name != "_" and name not in DOCUMENTED


def own_private_names(trees: list[ast.Module]) -> set[str]:
    """Every private name that the package itself defines: functions, classes, variables and attributes of `self`."""
    found: set[str] = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and isinstance(node.value, ast.Name)
                and node.value.id in {"self", "cls"}
            ):
                found.add(node.attr)
    return {name for name in found if is_private(name)}


def foreign_private_names(tree: ast.Module, own: set[str]) -> Iterator[tuple[str, int]]:
    """The private names that a file takes from a dependency, with their lines.

    Imports are followed by name. Of an attribute of an object whose class is not known here, a name that the package
    does not define is taken for a dependency's; so is one in `getattr`, `setattr` and `hasattr`.
    """
    foreign: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] != "ablate":
                    foreign.add((alias.asname or alias.name).split(".")[0])
                    if any(map(is_private, alias.name.split("."))):
                        yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] != "ablate":
            foreign.update(alias.asname or alias.name for alias in node.names)
            for alias in node.names:
                if any(map(is_private, [*(node.module or "").split("."), alias.name])):
                    yield f"{node.module}.{alias.name}", node.lineno
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            root: ast.expr = node.value
            while isinstance(root, ast.Attribute | ast.Call | ast.Subscript):
                root = root.func if isinstance(root, ast.Call) else root.value
            of_dependency = isinstance(root, ast.Name) and root.id in foreign
            if of_dependency or node.attr not in own:
                yield node.attr, node.lineno
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"getattr", "setattr", "hasattr", "delattr"}
            and len(node.args) > 1
            and isinstance(node.args[1], ast.Constant)
            and is_private(str(node.args[1].value))
            and str(node.args[1].value) not in own
        ):
            yield str(node.args[1].value), node.lineno


def used() -> dict[tuple[str, str], int]:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    own = own_private_names(list(trees.values()))
    return {
        (path.relative_to(PACKAGE).as_posix(), name): line
        for path, tree in trees.items()
        for name, line in foreign_private_names(tree, own)
    }


def test_private_names_of_dependencies_are_listed_with_their_reason() -> None:
    found = used()
    unlisted = [f"{file}:{line}: {name}" for (file, name), line in found.items() if (file, name) not in ALLOWED]
    assert not unlisted
    assert not set(ALLOWED) - set(found), "listed and no longer used"


def test_a_private_name_is_found() -> None:
    tree = ast.parse(
        "import matplotlib.text as text\nfrom torch import _C\nimport multiprocessing.util as u\n"
        "text.Text()._get_layout\nsetattr(u, '_exit_function', None)\nself._mine = 1\nother._theirs\n"
    )
    names = [name for name, _ in foreign_private_names(tree, own_private_names([tree]))]
    assert sorted(names) == ["_exit_function", "_get_layout", "_theirs", "torch._C"]
