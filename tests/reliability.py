"""`python -m tests.reliability`: writes docs/reliability.md from the tests that inject each fault.

A test says which row it injects, and what then happens: `@pytest.mark.fault(4, "the workers are gone within 5 s")`.
The markers are read from the source, so that the page is made without running or importing a test.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
SOAK = ROOT / "benchmarks" / "results" / "soak.json"
NOT_TESTED = "not tested"

FAULTS: Mapping[int | str, str] = {
    1: "A worker is killed in the middle of an epoch, or while it writes a checkpoint",
    2: "A process is killed at any single step of writing a file",
    3: "The power fails, and what was not yet synced is lost",
    4: "The driver is killed (SIGKILL)",
    5: "The driver is asked to end (SIGTERM)",
    6: "Ctrl-C, once and twice",
    7: "A worker hangs",
    8: "A model crashes every time",
    9: "The loss is no longer a finite number",
    10: "The device, or the machine, has no memory left for a trial",
    11: "The system kills a worker for want of memory",
    12: "The disk is full",
    13: "The results folder cannot be written",
    14: "Two runs of one folder at the same time",
    15: "The clock is set by a day, forwards or backwards",
    16: "The newest checkpoint is damaged",
    17: "Optuna's journal is damaged or gone",
    18: "The code of a plugin was changed since the first trial",
    19: "The study file was edited since the first trial",
    20: "The data were changed since the first trial",
    21: "W&B cannot be reached, or its process is killed",
    22: "The dashboard is open on a study that runs",
    23: "A machine of a cluster is lost",
    24: "Folders with blanks, quotes, any script's letters, or very long names",
    25: "A file in the working folder has the name of a Python module, or is the metadata of a package",
    26: "The folder has a git configuration of its own, with filters and hooks",
    27: "`--out` names a folder that holds something else",
    28: "A results folder contains links that lead out of it",
    29: "The cache belongs to somebody else, may be written by others, or holds a damaged library",
    30: "Signals to single processes, a closed terminal or pipe, processes that are stopped and continued",
    31: "Something tries to write the record of a finished trial again",
    32: "The data change while a study runs",
    33: "Any file of a results folder is damaged in any place",
    34: "Archives, images, plans and pipes made to use up memory or time",
    35: "Names and reasons with control characters, markup or spreadsheet formulas",
    36: "Cache, compiler or home folder are missing or cannot be written",
    37: "A trial takes no step for ten minutes",
}
INPUT: Mapping[int | str, str] = {
    "S1": "Study file: numbers that YAML readers read differently, or that are out of range",
    "S2": "Study file: repeated keys, anchors, tags, tabs, several documents, nothing at all",
    "S3": "Study file: alias bombs and absurd sizes",
    "S4": "Study file: bytes that are no text",
    "S5": "Study file: unknown keys, components and settings",
    "S6": "Study file: a plan that contradicts itself",
    "S7": "Study file: names that cannot be names of folders",
    "S8": "Study file: a password or key in it",
    "S9": "Study file: many problems at once",
    "D1": "Data: a folder that is not there",
    "D2": "Data: images without masks, masks without images",
    "D3": "Data: images or masks that are broken, lossy, of the wrong size, kind or labels",
    "D4": "Data: decompression bombs",
    "D5": "Data: one image, or one group, in two splits",
    "D6": "Data: an empty split",
    "P1": "Plugin: it cannot be imported",
    "P2": "Plugin: a model that breaks its contract",
    "P3": "Plugin: a name that is taken",
    "P4": "Plugin: it changes a global random state",
    "P5": "Plugin: a stranger's study names code beside it",
    "P6": "Plugin: bytecode of another program lies beside it",
    "R1": "Command: a device that is not there",
    "R2": "Results: a record that is damaged or of a newer version",
    "R3": "Results: a checkpoint of another trial",
    "R4": "Results: a checkpoint with a malicious pickle",
    "R5": "Results: markup in names and reasons, on the page",
    "R6": "Environment: a W&B key",
    "R7": "Dashboard: an address that other machines can reach; a web page that claims its address",
}
HEAD = """\
# What happens when something goes wrong

Kill anything at any moment, run the same command again, and every trial has the record of an undisturbed run: on a CPU
bit for bit, all but `timing` and `provenance`.

Each row names a fault, what happens then, and the tests that inject the fault into the real thing and assert just that;
`python -m tests.reliability` writes the rows from the tests. `make test` runs them all, except those that need a
browser, root or real images where there are none. *Equal* means that the records are those of an undisturbed run.
"""
SOAK_HEAD = """\
## Many faults at once

`make soak` runs a study of many small trials twice, once undisturbed and once while its processes are killed,
suspended and started twice, and the disk fills up. It compares the records, the curves, the counts of every image, the
predicted masks and the weights. `make test` has a smaller soak. The last long one:
"""


@dataclass(frozen=True)
class Injection:
    """A test that injects a fault."""

    row: int | str
    outcome: str
    file: str
    test: str


def injections(tests: Path) -> list[Injection]:
    """Return every `pytest.mark.fault` of the test files below `tests`, by file and line.

    Raises `ValueError` for a marker that is not a row and a text.
    """
    return [found for path in sorted(tests.rglob("test_*.py")) for found in _of_file(path, tests)]


def _of_file(path: Path, tests: Path) -> Iterator[Injection]:
    name = f"{tests.name}/{path.relative_to(tests).as_posix()}"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for decorator in getattr(node, "decorator_list", []):
            if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) != "pytest.mark.fault":
                continue
            try:
                row, outcome = (ast.literal_eval(argument) for argument in decorator.args)
            except ValueError:
                place = f"{name}:{decorator.lineno}"
                raise ValueError(f"{place}: expected pytest.mark.fault(row, 'outcome') with literal values") from None
            yield Injection(row, outcome, name, node.name)  # type: ignore[attr-defined]


def untested(found: list[Injection]) -> list[int | str]:
    """Return the rows that no test injects."""
    tested = {injection.row for injection in found}
    return [row for row in (*FAULTS, *INPUT) if row not in tested]


def page(found: list[Injection], soak: Mapping[str, Any] | None) -> str:
    """Return the page in Markdown. Raises `ValueError` for a test of a row that is not there."""
    unknown = [f"{one.file}: {one.test}: {one.row}" for one in found if one.row not in FAULTS and one.row not in INPUT]
    if unknown:
        raise ValueError(f"no such row: {'; '.join(unknown)}")
    parts = [HEAD, "## Faults\n", _table("fault", FAULTS, found), "## Bad input\n", _table("input", INPUT, found)]
    if soak is not None:
        parts += [SOAK_HEAD, _soak_table(soak)]
    return "\n".join(parts)


def _table(word: str, rows: Mapping[int | str, str], found: list[Injection]) -> str:
    lines = [f"| # | {word} | what happens, and the test that shows it |", "|---|---|---|"]
    for row, text in rows.items():
        shown: dict[str, dict[str, None]] = {}  # the tests of each outcome, in their order
        for one in found:
            if one.row == row:
                tests = shown.setdefault(one.outcome.replace("|", "\\|"), {})
                tests[f"[{one.test}](../{one.file})"] = None
        outcomes = "<br>".join(f"{outcome} ({', '.join(tests)})" for outcome, tests in shown.items())
        lines.append(f"| {row} | {text} | {outcomes or NOT_TESTED} |")
    return "\n".join(lines) + "\n"


def _soak_table(soak: Mapping[str, Any]) -> str:
    rows = {
        "trials": soak["trials"],
        "kills of workers, fork servers and drivers": soak["kills"],
        "other disturbances": sum(soak["disturbances"].values()) - soak["kills"],
        "second runs refused": soak["refused"],
        "records lost": len(soak["lost"]),
        "records doubled": len(soak["doubled"]),
        "records unequal": len(soak["unequal"]),
        "anything else that should not happen": len(soak["wrong"]),
        "time, as a multiple of the undisturbed run's": f"{soak['time_ratio']:.2f}",
    }
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    if soak["wrong"]:
        lines += ["", "What should not have happened:", "", *(f"- {text}" for text in soak["wrong"])]
    return "\n".join(lines) + "\n"


def current() -> str:
    """Return the page as it should be now."""
    soak = json.loads(SOAK.read_text(encoding="utf-8")) if SOAK.exists() else None
    return page(injections(ROOT / "tests"), soak)


if __name__ == "__main__":
    PAGE.write_text(current(), encoding="utf-8")
    print(f"wrote {PAGE}; rows without a test: {untested(injections(ROOT / 'tests'))}")
