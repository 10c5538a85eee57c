"""Find the file or the results that a person means by a study file, a study's name or a folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ablate.errors import Problem, ResultsError, StudyError, nearest
from ablate.records.store import Results

RESULTS = Path("results")
SUFFIXES = (".yaml", ".yml")
# Where study files are looked for by name.
STUDIES = "studies"
PLACES = (Path(), Path(STUDIES))


def study_file(given: Path) -> Path:
    """Return the study file that is meant: by its path, by a study's name, or by the folder that holds just one."""
    if given.is_dir():
        found = study_files([given])
        if not found and Results(given).is_marked():
            return by_name(str(Results(given).read_run().get("study"))) or Results(given).study
        if len(found) != 1:
            cure = f"name one of {', '.join(path.name for path in found)}" if found else "`ablate init` writes one"
            raise StudyError(Problem(f"{len(found) or 'no'} study files here", file=str(given), cure=cure))
        return found[0]
    if given.exists() or given.suffix in SUFFIXES:
        return given
    return by_name(given.name) or given


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
    """Return where the results of a study are: below this folder or beside the study file, whichever are there."""
    beside = study.absolute().parent
    places = [RESULTS / name, beside / "results" / name]
    if beside.name == STUDIES:  # which lies beside the results, as here
        places.append(beside.parent / "results" / name)
    return next((path for path in places if Results(path).is_marked()), places[0])


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
        raise ResultsError(f"the study '{name}' has no results yet", file=str(file), cure=f"ablate run {file}")
    cure = nearest(given.name, [path.name for path in known]) or "run a study first"
    raise StudyError(Problem("no results here", file=str(given), cure=cure))


def _is_results(path: Path) -> bool:
    return (path / "run.json").exists() or (path / "study.resolved.yaml").exists()
