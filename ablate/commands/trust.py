"""The plugins that a study names itself: files beside it, loaded only where the user has trusted them as they are."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

from ablate.errors import AblateError, StudyError
from ablate.plugins import PluginFile, hashed
from ablate.records.files import read_file, write_atomic
from ablate.study.machine import config_folder
from ablate.study.overrides import apply_overrides
from ablate.study.problems import Finding, Places
from ablate.study.reader import read_study
from ablate.study.yamlfile import MAX_BYTES, parse_bytes


def trusted_plugins(
    study: Path, overrides: Sequence[str] = (), named: Iterable[Path | str] = ()
) -> tuple[PluginFile, ...]:
    """Return the plugins of the study file at `study`, with the SHA-256 that the user trusts.

    Those whose file names the command line has `named` are trusted by that, and left out: it says where they lie.
    Raises `StudyError` for others that were not trusted, or changed since: nothing of theirs has run then.
    """
    places, files = _beside(study, overrides, {Path(path).name for path in named})
    known = _trusted().get(str(study.resolve()), {}) if files else {}
    new = [name for name, item in files.items() if known.get(name) != item.sha256]
    if new:
        said = ", ".join(f"{name} (changed)" if name in known else name for name in new)
        cure = f"read it, then: ablate trust {study}"
        finding = Finding(("plugins",), f"code that you have not trusted as it is: {said}", cure)
        raise StudyError(places.problem(finding))
    return tuple(files.values())


def trust(study: Path) -> dict[str, PluginFile]:
    """Remember the plugins of a study file as trusted, by its path and their SHA-256; return them by their names."""
    files = _beside(study)[1]
    if not files:
        read_study(study, check_components=False)  # which says what is wrong with the file, if something is
        raise StudyError("names no plugins, so that there is nothing to trust", file=str(study))
    known = _trusted() | {str(study.resolve()): {name: item.sha256 for name, item in files.items()}}
    path = config_folder() / "trusted.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, json.dumps(known, indent=1).encode())
    path.chmod(0o600)
    return files


def _beside(
    study: Path, overrides: Sequence[str] = (), here: Container[str] = ()
) -> tuple[Places, dict[str, PluginFile]]:
    """Return the plugins that a study file names, by these names, but those that are `here`; and where it does so.

    Of a file that cannot be read is said in full what is wrong when the study is read. Raises `StudyError` for what is
    no Python file in the study's folder.
    """
    places = Places(str(study), {})
    try:
        document = parse_bytes(read_file(study)[: MAX_BYTES + 1], str(study)) if study.is_file() else None
        if document is None or not isinstance(document.value, dict):
            return places, {}
        values, origins, _ = apply_overrides(document.value, overrides)
    except (AblateError, OSError):
        return places, {}
    places, names = Places(str(study), document.lines, origins), values.get("plugins") or ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return places, {}
    kept = {index: name for index, name in enumerate(names) if PurePath(name).name not in here}
    problems = [places.problem(_refused(study, name, index)) for index, name in kept.items() if _outside(study, name)]
    if problems:
        raise StudyError(problems)
    return places, {name: hashed(study.resolve().parent / name) for name in kept.values()}


def _outside(study: Path, name: str) -> bool:
    """Return whether a name is that of no Python file in the folder of the study; a link may not lead out of it.

    A package is none: what lies beside its `__init__.py` would be imported without having been hashed.
    """
    folder = study.resolve().parent
    path = folder / name
    inside = not PurePath(name).is_absolute() and ".." not in PurePath(name).parts
    single = path.suffix == ".py" and path.stem != "__init__"
    return not (inside and single and path.is_file() and path.resolve().is_relative_to(folder))


def _refused(study: Path, name: str, index: int) -> Finding:
    there = "no such file" if not (study.resolve().parent / name).exists() else "something else"
    message = f"expected a Python file in the folder of the study, got {there}: {name}"
    return Finding(("plugins", index), message, "code from elsewhere is loaded by --plugin FILE.py")


def _trusted() -> dict[str, Any]:
    """Return what the user trusts: the path of a study file to the names of its plugins to their SHA-256."""
    path = config_folder() / "trusted.json"
    try:
        found = path.stat()
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise StudyError("may be written by others, so that it shows no trust", file=str(path), cure="remove it")
        known = json.loads(read_file(path))
    except FileNotFoundError:
        return {}
    except ValueError:
        known = None
    if not isinstance(known, dict) or not all(isinstance(files, dict) for files in known.values()):
        raise StudyError("is damaged", file=str(path), cure="remove it, and trust your studies anew")
    return known
