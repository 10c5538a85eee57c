"""The commands as functions: `read_study`, `run_study`, `build_report`; the frames between them are pandas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.commands.given import plugins_of, results_of, study_of

if TYPE_CHECKING:
    from ablate.analysis.analyse import Analysis
    from ablate.analysis.frames import Frames
    from ablate.study.study import Study


def read_study(study: Path | str, overrides: Sequence[str] = (), *, plugins: Sequence[Path | str] = ()) -> Study:
    """Return the study that a file, a study's name or a folder means, with `overrides` such as "train.epochs=3".

    `plugins` are files with components of one's own. Raises `StudyError` with everything that is wrong.
    """
    return study_of(Path(study), overrides, plugins)[0]


def run_study(
    study: Study | Path | str,
    out: Path | str | None = None,
    *,
    only: Sequence[str] = (),
    retry: bool = False,
    profile: bool = True,
    plugins: Sequence[Path | str] = (),
) -> Frames:
    """Run what is missing of a study, and return all its results so far; a second call only reads them.

    `out` is the results folder (default results/<study>), `only` picks trials ("variant=unet"), `retry` runs failed
    ones again, `profile` ends with the throughput of each variant. A trial that failed or diverged is a row of
    `.trials` with its reason. Raises `AblateError` for what would end `ablate run` with exit code 2, and
    `KeyboardInterrupt` where it was stopped.
    """
    from ablate.analysis.frames import load_results
    from ablate.run.command import run_study as run
    from ablate.study.overrides import selection

    if isinstance(study, Path | str):
        study, loaded = study_of(Path(study), (), plugins)
    else:
        loaded = plugins_of(plugins, study.path)
    folder = Path(out) if out is not None else results_of(study.path, study.name)
    wanted = selection(only, study)
    if run(study, folder, plugins=loaded, wanted=wanted, retry=retry, profile=profile) > 128:
        raise KeyboardInterrupt
    return load_results(folder)


def build_report(results: Frames | Analysis | Path | str, *, pdf: bool = False, out: Path | str | None = None) -> Path:
    """Write tables, figures and the page of a study beside its records, or into `out`; return the page's path."""
    from ablate.report.build import build_report as build

    frames: Any = getattr(results, "frames", results)
    place: Path | str = getattr(frames, "path", frames)
    return next(path for path in build(place, pdf=pdf, out=out) if path.suffix == ".html")
