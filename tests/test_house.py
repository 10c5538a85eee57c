"""The house stands: imports go downward only, nothing is imported in a circle, the reading wing is free of torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "ablate"
FLOORS = {
    "__main__": 7,
    "api": 7,
    "cli": 7,
    "commands": 6,
    "testing": 6,
    "run": 5,
    "report": 5,
    "train": 4,
    "claims": 4,
    "analysis": 4,
    "records": 3,
    "study": 2,
    "data": 2,
    "plugins": 2,
    "measure": 1,
    "stats": 1,
    "parallel": 1,
    "registry": 1,
    "models": 1,
    "errors": 1,
    "wording": 1,
}
# Wings of one floor that do not know each other: they meet in the records only.
APART = [("run", "report"), ("train", "analysis")]
FILES = sorted(PACKAGE.rglob("*.py"))


def room(module: str) -> str:
    """`ablate.train.trial` -> `train`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> list[tuple[str, int]]:
    """Modules of the package that a file imports, with the lines."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ablate"):
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "ablate" else [node.module]
            )
            found += [(name, node.lineno) for name in names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names if alias.name.startswith("ablate.")]
    return found


def test_every_room_has_a_floor() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert rooms <= set(FLOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward_only(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return  # the package's own names are a view of all floors
    for module, line in imports(path):
        other = room(module)
        if other not in FLOORS:
            continue
        assert FLOORS[other] <= FLOORS[own], f"{path.name}:{line} imports {module} from a floor above"
        assert (own, other) not in APART and (other, own) not in APART, f"{path.name}:{line} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_opens_with_what_belongs_in_it_and_is_not_too_long(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), f"{path.name} has no opening sentence"
    assert len(text.splitlines()) <= 400


# Docstrings that begin so name a question instead of saying what the thing does.
QUESTION = re.compile(r"(What|How|Whether|As|Where|Why)\b")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstrings_say_what_a_thing_does(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    asking = [doc.splitlines()[0] for node in documented if QUESTION.match(doc := ast.get_docstring(node) or "")]
    assert not asking


def test_no_file_name_stands_twice() -> None:
    names = [path.name for path in FILES if path.name != "__init__.py"]
    assert {name for name in names if names.count(name) > 1} == set()


def test_reading_results_imports_neither_torch_nor_optuna() -> None:
    code = (
        "import sys, ablate.report.build, ablate.analysis.analyse, ablate.claims.verdicts\n"
        "print([name for name in ('torch', 'optuna', 'wandb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, ablate.cli\nprint([n for n in ('torch', 'optuna', 'pandas', 'matplotlib') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
