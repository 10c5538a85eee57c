"""The arguments and options that commands share, and what they lead to: a study, its plugins, its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ablate.commands import completion

StudyFile = Annotated[
    Path,
    typer.Argument(
        help="A study file, a study's name, or a folder with one study.",
        show_default=False,
        autocompletion=completion.studies,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--override",
        metavar="KEY=VALUE",
        help="Override a field: -o train.epochs=3",
        autocompletion=completion.keys,
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
        autocompletion=completion.results,
    ),
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
        autocompletion=completion.variants,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="KEY=VALUE",
        help="Only trials with variant=, seed= or an axis.",
        autocompletion=completion.picks,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")]


def plugins_of(files: list[Path] | None, study: Path | None = None, override: list[str] | None = None) -> Any:
    """Load the plugins in `files`, those that the file `study` names, and those that are installed; return them."""
    from ablate.plugins import Plugins, load_plugins

    every: list[Any] = [path.absolute() for path in files or []]
    if study is not None:
        from ablate.commands.trust import trusted_plugins

        every += trusted_plugins(study, override or (), every)
    return Plugins(tuple(every), tuple(load_plugins(every)))


def study_of(given: Path, override: list[str] | None, plugin: list[Path] | None) -> tuple[Any, Any]:
    """Return the study that is meant, and the plugins, which are loaded before it is read."""
    from ablate.commands.given import study_file
    from ablate.study.reader import read_study

    file = study_file(given)
    plugins = plugins_of(plugin, file, override)
    return read_study(file, override or ()), plugins


def results_path(study: Any) -> Path:
    """Return where the results of a study are, or will be."""
    from ablate.commands.given import results_of

    return results_of(study.path, study.name)


def folder_of(given: Path | None) -> Path:
    """Return the results folder that is meant."""
    from ablate.commands.given import results_folder

    return results_folder(given)


def study_behind(given: Path | None, folder: Path) -> Path | None:
    """Return the study file of a results folder, where it was given or is found by its name."""
    from ablate.commands.given import by_name
    from ablate.records.store import Results

    return given if given is not None and given.is_file() else by_name(str(Results(folder).read_run().get("study")))


def print_json(document: Any) -> None:
    """Print a document as JSON."""
    print(json.dumps(document, indent=1, ensure_ascii=False))
