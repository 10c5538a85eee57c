"""Find what a person means by a study file, a study's name or a folder: a study, its plugins, its results.

What takes long to import is imported by the function that needs it: `ablate --help` needs none of it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ablate.errors import Problem, ResultsError, StudyError, nearest
from ablate.wording import short_path

if TYPE_CHECKING:
    from ablate.plugins import Plugins
    from ablate.study.study import Study

RESULTS = Path("results")
SUFFIXES = (".yaml", ".yml")
# Where study files are looked for by name.
STUDIES = "studies"
PLACES = (Path(), Path(STUDIES))


def study_file(given: Path) -> Path:
    """Return the study file that is meant: by its path, by a study's name, or by the folder that holds just one."""
    from ablate.records.store import Results

    if given.is_dir():
        found = study_files([given])
        if not found and Results(given).is_marked():
            return by_name(str(Results(given).read_run().get("study"))) or Results(given).study
        if len(found) != 1:
            cure = f"name one of {', '.join(path.name for path in found)}" if found else "`ablate init` writes one"
            raise StudyError(f"{len(found) or 'no'} study files here", file=str(given), cure=cure)
        return found[0]
    if given.exists() or given.suffix in SUFFIXES:
        return given
    return by_name(given.name) or given


def study_of(
    given: Path, override: Sequence[str] | None = None, plugin: Sequence[Path | str] | None = None
) -> tuple[Study, Plugins]:
    """Return the study that is meant, and the plugins, which are loaded before it is read."""
    from ablate.study.reader import read_study

    file = study_file(given)
    plugins = plugins_of(plugin, file, override)
    return read_study(file, override or ()), plugins


def plugins_of(
    files: Sequence[Path | str] | None, study: Path | None = None, override: Sequence[str] | None = None
) -> Plugins:
    """Load the plugins in `files`, those that the file `study` names, and those that are installed; return them."""
    from ablate.plugins import Plugins, load_plugins

    every: list[Any] = [Path(path).absolute() for path in files or []]
    if study is not None:
        from ablate.commands.trust import trusted_plugins

        every += trusted_plugins(study, override or (), every)
    return Plugins(tuple(every), tuple(load_plugins(every)))


def by_name(name: str) -> Path | None:
    """Return the study file of this name, with or without its ending, here or in studies/; None where there is none."""
    files = study_files(PLACES)
    return next((path for path in files if path.stem == name), None) or next(
        (path for path in files if name_in(path) == name), None
    )


def study_files(folders: Iterable[Path]) -> list[Path]:
    """Return the files in `folders` that name a study."""
    found = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    return [path for path in found if path.suffix in SUFFIXES and path.is_file() and name_in(path)]


def name_in(path: Path) -> str:
    """Return the name of the study that a file is, "" where it is none."""
    try:
        with path.open(encoding="utf-8") as handle:
            match = re.search(r"^study:\s*[\"']?([\w.+-]+)", handle.read(1 << 16), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return ""
    return match[1] if match else ""


def results_of(study: Path, name: str) -> Path:
    """Return where the results of a study are: below this folder or beside the study file, whichever are there.

    The study as it lies in a results folder, which was given without its file, goes on in that folder.
    """
    from ablate.records.store import Results

    if study == Results(study.parent).study and Results(study.parent).is_marked():
        return study.parent
    places = [RESULTS / name, study.parent / "results" / name]
    if study.absolute().parent.name == STUDIES:  # which lies beside the results, as here
        places.append(study.parent / ".." / "results" / name)
    return next((short_path(path) for path in places if Results(path).is_marked()), places[0])


def results_folder(given: Path | None) -> Path:
    """Return the results that are meant: a folder, a study's file or name; the newest where nothing is given."""
    known = [path for path in RESULTS.glob("*") if (path / "run.json").exists()]
    if given is None:
        if not known:
            here = next(iter(study_files(PLACES)), None)
            cure = f"`ablate run {here}` makes some" if here else "`ablate init FOLDER` writes a study of your images"
            raise StudyError("no results yet", cure=cure)
        return max(known, key=lambda path: max((path / "run.json").stat().st_mtime, path.stat().st_mtime))
    for path in (given, RESULTS / given):
        if _is_results(path):
            return path
    file = given if given.is_file() else by_name(given.name) if not given.exists() else None
    file = next(iter(study_files([given])), None) if given.is_dir() else file
    if file is not None and (name := name_in(file)):
        path = results_of(file, name)
        if _is_results(path):
            return path
        others = [str(found) for found in known if _study_of(found) == name]
        if others:
            cure = f"name {' or '.join(others)}, or run {file} without --out"
            raise ResultsError(f"no results of the study '{name}' in {path}", file=str(file), cure=cure)
        raise ResultsError(f"the study '{name}' has no results yet", file=str(file), cure=f"ablate run {file}")
    cure = nearest(given.name, [path.name for path in known]) or "run a study first"
    raise StudyError("no results here", file=str(given), cure=cure)


def _study_of(path: Path) -> str | None:
    from ablate.records.store import Results

    try:
        return Results(path).read_run().get("study")
    except ResultsError:
        return None


def _is_results(path: Path) -> bool:
    return (path / "run.json").exists() or (path / "study.resolved.yaml").exists()


def study_behind(given: Path | None, folder: Path) -> Path | None:
    """Return the study file of a results folder, where it was given or is found by its name."""
    from ablate.records.store import Results

    return given if given is not None and given.is_file() else by_name(str(Results(folder).read_run().get("study")))


def print_json(document: Any) -> None:
    """Print a document as JSON."""
    print(json.dumps(document, indent=1, ensure_ascii=False))


def misused(error: typer.TyperException) -> Problem:
    """Return what is wrong with the words of a command: what was expected, and the cure."""
    from pydantic import ValidationError

    from ablate.study.problems import translate

    if isinstance(error.__cause__, ValidationError) and isinstance(error, typer.BadParameter) and error.param:
        option, default = error.param.opts[0], error.param.default
        (found,) = translate(error.__cause__, error.__cause__.errors()[0]["input"])
        message = found.message.replace("got the text ", "got ")
        return Problem(message, key=option, cure=f"write {option} {default or 2:g}")
    context = getattr(error, "ctx", None)
    words = [context.command_path] if context else ["ablate", *(word for word in sys.argv[1:2] if word[0] != "-")]
    text, _, cure = error.format_message().rstrip(".").partition(". ")
    if near := getattr(error, "possibilities", None):
        text, cure = str(error), nearest(getattr(error, "option_name", ""), near)
    return Problem(text[0].lower() + text[1:], cure=cure[:1].lower() + cure[1:] or f"{' '.join(words)} --help")
