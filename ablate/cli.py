"""The commands of `ablate` and their exit codes. Heavy imports wait for the command that needs them."""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m ablate.cli` looks for modules in the working folder first: a stranger's json.py there is not ours.
    del sys.path[0]

import errno
import io
from pathlib import Path
from typing import Annotated, Any

# Ctrl-C while this is imported ends the process as it ends any other; a command that can do better takes over later.
if Path(sys.argv[0]).stem in ("ablate", "cli", "-m") and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import typer

from ablate.commands.given import (
    misused,
    plugins_of,
    print_json,
    results_folder,
    results_of,
    study_behind,
    study_file,
    study_of,
)
from ablate.commands.options import CodeChange, Folder, Json, MixedDevices, Only, Out, Overrides, Plugins, StudyFile
from ablate.commands.tools import TOOLS
from ablate.errors import AblateError, Problem, ResultsError, StudyError, full_disk, is_full_disk

app = typer.Typer(
    name="ablate",
    help="Ablation studies of segmentation models that can be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line: an error that is the user's to mend is one line each, and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        # A name that is no UTF-8 is shown escaped and ends nothing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:
        print("ablate: stopped", file=sys.stderr)
        sys.exit(1)
    except typer.TyperException as error:
        if error.format_message():  # else the help was printed
            print(f"ablate: {misused(error)}", file=sys.stderr)
        sys.exit(2)
    except AblateError as error:
        for problem in error.problems:
            print(f"ablate: {problem}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if is_full_disk(error) and error.errno != errno.EROFS:
            lost = "then run the same command again: nothing finished is lost"
            print(f"ablate: {full_disk(error, Path())}, {lost}", file=sys.stderr)
            sys.exit(1)
        if error.filename is None:
            raise
        print(f"ablate: {Problem(error.strerror or str(error), file=os.fsdecode(error.filename))}", file=sys.stderr)
        sys.exit(2)


@app.command()
def run(
    study: StudyFile,
    override: Overrides = None,
    plugin: Plugins = None,
    out: Out = None,
    only: Only = None,
    extend: Annotated[
        float | None, typer.Option("--extend", help="Go on with the same trials to this many times the epochs.")
    ] = None,
    no_profile: Annotated[bool, typer.Option("--no-profile", help="Leave out the closing throughput profile.")] = False,
    allow_code_change: CodeChange = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave the trials to the cluster's queue; the same command gathers them.")
    ] = False,
    join: Annotated[
        bool, typer.Option("--join", help="Share the trials with other `ablate run --join` of the same folder.")
    ] = False,
    mixed_devices: MixedDevices = False,
) -> None:
    """Run what is missing of a study; a second call only does what the first left."""
    options = {"allow_code_change": allow_code_change, "detach": detach, "mixed_devices": mixed_devices, "join": join}
    _run(study, override, plugin, out, only, extend=extend, profile=not no_profile, **options)


@app.command()
def retry(
    study: StudyFile,
    override: Overrides = None,
    plugin: Plugins = None,
    out: Out = None,
    only: Only = None,
    allow_code_change: CodeChange = False,
) -> None:
    """Run what is missing of a study, and its failed trials once more."""
    _run(study, override, plugin, out, only, retry=True, allow_code_change=allow_code_change)


def _run(
    study: Path,
    override: list[str] | None,
    plugin: list[Path] | None,
    out: Path | None,
    only: list[str] | None,
    extend: float | None = None,
    **options: Any,
) -> None:
    from ablate.run.command import run_study, start_early
    from ablate.study.overrides import selection

    file = study_file(study)
    start_early(file, override or (), lambda name: out or results_of(file, name))
    loaded, plugins = study_of(file, override, plugin)
    folder, origin = out or results_of(file, loaded.name), None
    if extend is not None:
        # Longer trials are other trials: they get a folder of their own, and start from the shorter ones.
        loaded, origin = loaded.extended(extend), folder
        folder = folder.with_name(f"{folder.name}-x{extend:g}")
    wanted = selection(only or [], loaded)
    raise typer.Exit(run_study(loaded, folder, plugins=plugins, wanted=wanted, origin=origin, **options))


@app.command()
def plan(
    study: StudyFile,
    override: Overrides = None,
    plugin: Plugins = None,
    power: Annotated[
        Path | None, typer.Option("--power", help="Plan seeds from a pilot: the detectable difference of its results.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the trials, what each variant changes, and what it will cost, without training."""
    loaded, _ = study_of(study, override, plugin)
    if power is not None:
        from ablate.run.plan.planner import print_power

        print_power(loaded, results_folder(power))
        return
    from ablate.run.plan.view import plan_document, print_plan

    results = results_of(loaded.path, loaded.name)
    print_json(plan_document(loaded, results)) if as_json else print_plan(loaded, results=results)


@app.command()
def check(
    study: StudyFile, override: Overrides = None, plugin: Plugins = None, out: Out = None, as_json: Json = False
) -> None:
    """Check a study before it runs: file, data, plugins, a batch through every network, device, memory, disk, W&B."""
    loaded, _ = study_of(study, override, plugin)
    from ablate.run.plan.view import check_document, fits, print_check

    results = out or results_of(loaded.path, loaded.name)
    if as_json:
        found = check_document(loaded, results)
        print_json({"name": loaded.name, **found})
        raise typer.Exit(0 if fits(found) else 1)
    raise typer.Exit(print_check(loaded, results))


@app.command()
def check_plugin(file: Annotated[Path, typer.Argument(metavar="FILE.py", help="Python file of a plugin.")]) -> None:
    """Check all that a plugin registers by training with it: shapes, modes, seeds, resume, no state between trials."""
    from ablate import testing

    for line in testing.check_plugin(file):
        print(line)


@app.command()
def schema() -> None:
    """Print the JSON schema of a study file, for editors that complete it."""
    import json

    from ablate.study.jsonschema import json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command()
def status(results: Folder = None, as_json: Json = False) -> None:
    """Print how far a study is: trials by state, failures with their reasons."""
    from ablate.run.status import print_status, status_document

    if as_json:
        found = status_document(results_folder(results))
        print_json(found)
        raise typer.Exit(0 if found["done"] == found["trials"] else 1)
    raise typer.Exit(print_status(results_folder(results)))


@app.command()
def stop(results: Folder = None) -> None:
    """Have the run of a study checkpoint its trials and end, wherever it runs: here, or as jobs of a cluster."""
    from ablate.run.status import stop_run

    raise typer.Exit(stop_run(results_folder(results)))


@app.command()
def merge(
    left: Annotated[Path, typer.Argument(help="A results folder.")],
    right: Annotated[Path, typer.Argument(help="Another results folder of the same study.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the trials of both.")],
    mixed_devices: MixedDevices = False,
) -> None:
    """Unite two results folders of one study; a trial that both have must have come out the same."""
    from ablate.run.merge import merge as unite

    raise typer.Exit(unite(results_folder(left), results_folder(right), out, mixed_devices=mixed_devices))


@app.command()
def verify(
    results: Folder = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put damaged files aside, so that they are made again.")
    ] = False,
) -> None:
    """Check every file of a study's results again: digests, records, curves, scores; name what is damaged."""
    from ablate.run.verify import print_verification

    raise typer.Exit(print_verification(results_folder(results), repair=repair))


@app.command()
def report(
    results: Folder = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh the report as trials end.")] = False,
    pdf: Annotated[bool, typer.Option("--pdf", help="Write the figures as PDF too.")] = False,
    paper: Annotated[
        bool, typer.Option("--paper", help="Write paper/: figure, table, methods and references for LaTeX.")
    ] = False,
    plugins: Plugins = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for tables, figures and page; default the results folder.")
    ] = None,
) -> None:
    """Make tables, figures and the page of a study from its records."""
    _one_thread()
    from ablate.records.store import Results
    from ablate.report.build import build_report
    from ablate.wording import listed

    folder = results_folder(results)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        loaded = plugins_of(plugins, study_behind(results, folder)).loaded
        written = build_report(folder, watch=watch, pdf=pdf, paper=paper, out=out)
    except KeyboardInterrupt:
        print("stopped; what was written last stays", file=sys.stderr)
        raise typer.Exit(130) from None
    used = {Path(item["file"]).name for item in Results(folder).read_run().get("plugins") or ()}
    if lacking := sorted(used - {Path(item.file).name for item in loaded}):
        print(f"left out are measures, figures and tables of {listed(lacking)}, if any; --plugin FILE adds them")
    for path in written:
        if path.suffix == ".html":
            print(path)
        if path.name == "example.tex":
            print(f"{path.parent}/")


@app.command()
def compare(
    left: Annotated[Path, typer.Argument(help="A results folder.")],
    right: Annotated[Path, typer.Argument(help="Another results folder.")],
    as_json: Json = False,
) -> None:
    """Set two studies side by side and say what differs in their settings, versions and data."""
    _one_thread()
    from ablate.report.diff import compare_studies, print_comparison

    sides = results_folder(left), results_folder(right)
    if sides[0].samefile(sides[1]):
        raise ResultsError("both sides are this folder", file=str(sides[0]), cure="name another one to compare it with")
    if as_json:
        import dataclasses

        print_json(dataclasses.asdict(compare_studies(*sides)))
    else:
        print_comparison(*sides)


@app.command()
def dashboard(
    results: Folder = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the dashboard.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on; it has no login and can delete.")] = "127.0.0.1",
    expose: Annotated[bool, typer.Option("--expose", help="Allow an address other machines can reach.")] = False,
) -> None:
    """Open the Optuna dashboard on a study, with each trial's settings, curves and panel."""
    from ablate.run.dashboard import serve

    def curves() -> Any:
        from ablate.report.figures.curves import write_curves

        return write_curves

    serve(results_folder(results), host=host, port=port, expose=expose, curves=curves)


@app.command()
def profile(
    study: StudyFile,
    override: Overrides = None,
    plugin: Plugins = None,
    out: Out = None,
    seconds: Annotated[float, typer.Option(help="About how long the measuring takes.")] = 60.0,
) -> None:
    """Measure each variant alone on the device, interleaved; the figures join the study's tables."""
    if not 0 < seconds <= 86_400:
        raise StudyError(f"--seconds: expected seconds of a day at most, got {seconds:g}", cure="write --seconds 60")
    loaded, plugins = study_of(study, override, plugin)
    from ablate.run.command import profile_study

    results = out or results_of(loaded.path, loaded.name)
    raise typer.Exit(profile_study(loaded, results, plugins=plugins, seconds=seconds))


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from ablate import __version__

        print(__version__)
        raise typer.Exit


def _one_thread() -> None:
    """Have matrix products use one thread, unless the environment says otherwise; call it before numpy is imported.

    The bootstrap's products are many and small: several threads spend more on waiting for one another than they save.
    """
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")


for _tool in TOOLS:
    app.command()(_tool)

if __name__ == "__main__":
    main()
