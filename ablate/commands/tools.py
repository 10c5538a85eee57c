"""The commands around a study: init, data, components before it; predict, export and clean after it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ablate.commands.given import plugins_of, print_json, results_folder, study_behind, study_file, study_of
from ablate.commands.options import Folder, Json, Overrides, Plugins, StudyFile, VariantName, Yes, complete_results
from ablate.errors import AblateError


def init(
    folder: Annotated[Path, typer.Argument(help="The folder of the images and masks.")] = Path(),
    out: Annotated[Path | None, typer.Option("--out", help="The study file; default <folder>.yaml here.")] = None,
    yes: Yes = False,
) -> None:
    """Look at a folder of images and masks, and write a commented study of them that runs as it is."""
    from ablate.commands.init import NOT_READY, write_study

    def ask(question: str, default: str) -> str:
        return str(typer.prompt(question, default=default))

    (path, *more), notes = write_study(folder, out, ask=None if yes or not sys.stdin.isatty() else ask)
    for note in notes:
        print(f"note: {note}")
    name = shlex.quote(str(path))
    if more:
        print(f"wrote {more[0]}, with which editors complete and check the study")
    following = f"ablate check {name}, ablate data {name}, ablate run {name}, ablate report"
    if NOT_READY in notes:
        following = f"put the files right, then ablate check {name}"
    print(f"wrote {path}; next: {following}")


def data(
    study: StudyFile,
    override: Overrides = None,
    plugin: Plugins = None,
    out: Annotated[Path | None, typer.Option("--out", help="The picture; default <study>-data.png here.")] = None,
) -> None:
    """Look at a study's data: a sheet of images with their masks laid over, class frequencies, sizes, leaks."""
    loaded, _ = study_of(study, override, plugin)
    from ablate.commands.sheet import print_data, write_sheet
    from ablate.run.plan.dry import load_data

    dataset, path = load_data(loaded), out or Path(f"{loaded.name}-data.png")
    print_data(dataset)
    write_sheet(dataset, path)
    print(f"wrote {path}")


def predict(
    results: Annotated[
        Path, typer.Argument(help="A results folder, a study's file or its name.", autocompletion=complete_results)
    ],
    images: Annotated[
        list[Path],
        typer.Argument(help="Images or folders of images, of any size; '*_{B02,B03}.tif' where each band is a file."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder for masks and overlays.")],
    variant: VariantName = None,
    plugin: Plugins = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write the probability of every class too (.npz).")
    ] = False,
) -> None:
    """Predict new images with the best network of a study."""
    folder = results_folder(results)
    plugins_of(plugin, study_behind(results, folder))
    from ablate.commands.predict import predict as predict_images
    from ablate.records.store import Results
    from ablate.wording import count_of

    record, count, left = predict_images(Results(folder), images, out, variant=variant, probabilities=probabilities)
    score = record.metrics.get("val_mean_iou") or 0.0
    made = f"masks and overlays of {count_of(count, 'image')} in {out}"
    if left:
        print(f"{count_of(left, 'mask')} of these images left out")
    print(f"{record.variant}, seed {record.seed} (val mIoU {100 * score:.2f} %): {made}")


def export(
    results: Folder = None,
    out: Annotated[Path, typer.Option("--out", help="The folder for the files.")] = Path("export"),
    variant: VariantName = None,
    plugin: Plugins = None,
    forms: Annotated[
        list[str] | None, typer.Option("--as", help="safetensors, torch or onnx; default all that can be written.")
    ] = None,
) -> None:
    """Export the best network of a study: weights, model.json, and programs of torch.export and ONNX."""
    folder = results_folder(results)
    plugins_of(plugin, study_behind(results, folder))
    from ablate.commands.export import FORMS
    from ablate.commands.export import export as export_network
    from ablate.errors import nearest
    from ablate.records.store import Results

    for form in forms or ():
        if form not in FORMS:
            raise AblateError(f"--as {form}: unknown form", cure=nearest(form, FORMS))
    found = export_network(Results(folder), out, variant=variant, forms=tuple(forms or ()))
    for name, item in found["files"].items():
        print(f"{out / name}: logits differ by {item['largest_difference']:.1e} of the largest at most")
    print(out / "model.json")


def clean(
    results: Folder = None,
    weights: Annotated[bool, typer.Option("--weights", help="Delete the best networks, too.")] = False,
    mirrors: Annotated[
        bool, typer.Option("--mirrors", help="Delete the trackers' and the dashboard's files, too.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Delete what finished trials no longer need: optimizer states and checkpoints."""
    from ablate.commands.clean import check as check_folder
    from ablate.commands.clean import clean as clean_folder
    from ablate.commands.clean import spare
    from ablate.records.store import Results
    from ablate.wording import count_of, size_text

    folder = Results(results_folder(results))
    check_folder(folder)
    found = list(spare(folder, weights=weights, mirrors=mirrors))
    if not found:
        print(f"{folder.path}: nothing to delete")
        return
    total = f"{count_of(len(found), 'item')}, {size_text(sum(size for _, size in found))}"
    if not yes and not (sys.stdin.isatty() and typer.confirm(f"Delete {total} in {folder.path}?")):
        print(f"nothing was deleted; {total} can go: ablate clean {folder.path} --yes")
        raise typer.Exit(1)
    print(f"{folder.path}: {size_text(clean_folder(folder, weights=weights, mirrors=mirrors))} freed")


def components(plugin: Plugins = None, as_json: Json = False) -> None:
    """List models, data sets, losses, optimizers and augmentations with their settings."""
    plugins_of(plugin)
    from ablate.study.jsonschema import catalogue

    if as_json:
        print_json(catalogue())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=False)
    for head in ("kind", "name", "settings", "what it is"):
        table.add_column(head, overflow="fold")
    for row in catalogue():
        settings = [
            f"{key}: {item['type']} = {json.dumps(item['default'])}" if "default" in item else f"{key}: {item['type']}"
            for key, item in row["settings"].items()
        ]
        table.add_row(*map(Text, (row["kind"], row["name"], "\n".join(settings), row["summary"])))
    Console().print(table)


def trust(study: StudyFile) -> None:
    """Trust the plugins that a study names, as they are now: their code runs with all your rights. Read it first."""
    from ablate.commands.trust import trust as remember

    file = study_file(study)
    for name, item in remember(file).items():
        print(f"{name}: SHA-256 {item.sha256}")
    print(f"{file}: trusted; a file that changes is not loaded before you trust it again")


TOOLS = (init, data, predict, export, clean, components, trust)
