"""`ablate clean`: give back the room of what a finished trial no longer needs; a report reads none of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from ablate.errors import ResultsError
from ablate.records.files import TEMPORARY, lock, refuse_links, size_of
from ablate.records.record import FINISHED
from ablate.records.store import Results, read_record

# Mirrors and logs, which `ablate dashboard` and a run make again.
MIRRORS = ("artifacts", "wandb", "tensorboard")


def spare(results: Results, *, weights: bool = False, mirrors: bool = False) -> Iterator[tuple[Path, int]]:
    """Give what can go, with its bytes: optimizer states and checkpoints of trials whose record stands.

    With `weights` the best networks, too; with `mirrors` W&B's and the dashboard's files.
    """
    for folder in results.folders():
        try:
            record = read_record(folder.record)
        except ResultsError:
            continue
        if record is None or record.status not in FINISHED:
            continue
        files = [folder.last, *folder.checkpoints(), *folder.path.glob(f".*{TEMPORARY}")]
        files += [folder.best, folder.card] if weights else []
        yield from ((path, path.stat().st_size) for path in files if path.is_file())
    for name in MIRRORS if mirrors else ():
        if (place := results.path / name).is_dir():
            yield place, size_of(place)


def clean(results: Results, *, weights: bool = False, mirrors: bool = False) -> int:
    """Delete what `spare` gives; return the bytes freed.

    Raises `ResultsError` where the folder is no marked results folder, holds a link, or a run holds it.
    """
    check(results)
    with lock(results.lock, "ablate clean") as held:
        if not held:
            raise ResultsError("a run holds this folder", file=str(results.path), cure="clean when it has ended")
        freed = 0
        for path, size in list(spare(results, weights=weights, mirrors=mirrors)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            freed += size
    return freed


def check(results: Results) -> None:
    """Raise `ResultsError` where `results` is not a results folder, or has a link in it that could lead elsewhere."""
    if not results.is_marked():
        raise ResultsError("not a results folder", file=str(results.path), cure="name the folder of a study's results")
    refuse_links(results.path)
