"""The arguments and options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
