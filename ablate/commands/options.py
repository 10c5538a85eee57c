"""The arguments and options that commands share, and their completion in a shell, which raises nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ablate.commands.given import PLACES, RESULTS, name_in, results_folder, study_file, study_files


def complete_studies(incomplete: str) -> list[str]:
    """Return the names of the studies here and in studies/; a shell completes files by itself."""
    return _beginning(incomplete, (name_in(path) for path in study_files(PLACES)))


def complete_results(incomplete: str) -> list[str]:
    """Return the names of the studies that have results here."""
    return _beginning(incomplete, (path.parent.name for path in RESULTS.glob("*/run.json")))


def complete_variants(incomplete: str) -> list[str]:
    """Return the variants of the results that are named before the cursor."""
    from ablate.records.store import Results

    for word in _before(incomplete):
        with contextlib.suppress(Exception):
            return _beginning(incomplete, Results(results_folder(Path(word))).read_run()["variants"])
    return []


def complete_picks(incomplete: str) -> list[str]:
    """Return what --only may say of the study that is named before the cursor."""
    from ablate.study.reader import read_study
    from ablate.study.trial import level_text

    for word in _before(incomplete):
        with contextlib.suppress(Exception):
            study = read_study(study_file(Path(word)), check_components=False)
            levels: dict[str, Iterable[Any]] = {"variant": study.variants, "seed": study.seeds, **study.spec.grid}
            texts = {key: [level_text(level) for level in values] for key, values in levels.items()}
            return _beginning(incomplete, (f"{key}={text}" for key, values in texts.items() for text in values))
    return []


def complete_keys(incomplete: str) -> list[str]:
    """Return the fields that -o may override; a single one also with its default, so that no blank follows the "="."""
    from ablate.study.spec import StudySpec

    schema = StudySpec.model_json_schema()
    found = dict(_fields(schema, schema["$defs"], ""))
    fitting = _beginning(incomplete, (f"{key}=" for key in found))
    if len(fitting) == 1 and (default := found[fitting[0][:-1]].get("default")) is not None:
        fitting.append(f"{fitting[0]}{str(default).lower() if isinstance(default, bool) else default}")
    return fitting


def _fields(schema: dict[str, Any], definitions: dict[str, Any], above: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, item in schema.get("properties", {}).items():
        parts = [
            definitions[part["$ref"].rpartition("/")[2]] for part in [item, *item.get("anyOf", ())] if "$ref" in part
        ]
        below = [part for part in parts if "properties" in part]
        if not below:
            yield above + name, item
        for part in below:
            yield from _fields(part, definitions, f"{above}{name}.")


def _before(incomplete: str) -> list[str]:
    """Return the words of the command before the cursor, as the shell's script hands them over."""
    words = (os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")).split()
    return words[2:-1] if incomplete and words[-1:] == [incomplete] else words[2:]


def _beginning(incomplete: str, words: Iterable[str]) -> list[str]:
    return sorted({word for word in words if word.startswith(incomplete)})


StudyFile = Annotated[
    Path,
    typer.Argument(
        help="A study file, a study's name, or a folder with one study.",
        show_default=False,
        autocompletion=complete_studies,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--override",
        metavar="KEY=VALUE",
        help="Override a field: -o train.epochs=3",
        autocompletion=complete_keys,
    ),
]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", metavar="FILE.py", help="Python file with your own components.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Results folder; default results/<study>.")]
Folder = Annotated[
    Path | None,
    typer.Argument(
        help="A results folder, a study's file or its name; default the latest.",
        show_default=False,
        autocompletion=complete_results,
    ),
]
CodeChange = Annotated[
    bool, typer.Option("--allow-code-change", help="Go on although a plugin changed; the records are marked.")
]
MixedDevices = Annotated[
    bool, typer.Option("--mixed-devices", help="Take over trials of another device, engine or precision; marked.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
VariantName = Annotated[
    str | None,
    typer.Option(
        "--variant",
        help="The variant whose network is taken; default the best by validation.",
        autocompletion=complete_variants,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="KEY=VALUE",
        help="Only trials with variant=, seed= or an axis.",
        autocompletion=complete_picks,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")]
