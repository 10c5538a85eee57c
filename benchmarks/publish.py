"""Publish a study below `results/published/`: `python -m benchmarks.publish unet-street`, or `make publish STUDY=...`.

What a reader needs and no more: the page, the consolidated figure, the tables as CSV, the study, and the records with
their curves in one archive, which `ablate` reads as it is. Not weights, predictions and pictures of the data.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ablate.errors import ResultsError
from ablate.records.store import PACKED, Results
from ablate.report.build import build_report

RESULTS = Path(__file__).resolve().parents[1] / "results"
OF_A_STUDY = ("run.json", "profile.json", "test/index.json")
OF_A_TRIAL = ("epochs.jsonl", "images.npz", "record.json", "steps.f32")
# The words of the claims, which their CSV has not; `benchmarks.original_report` quotes them.
TABLES = ("*.csv", "rules.json", "claims.md")
MEGABYTE = 1e6


def publish(source: Path, target: Path) -> None:
    """Write what is published of the results folder `source` into `target`, in place of what lies there.

    Raises `ResultsError` where there is nothing to report; what lies there then stays.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as scratch:
        _write(source, made := Path(scratch) / target.name)
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)


def _write(source: Path, target: Path) -> None:
    build_report(source, only=["tables", "page", "consolidated"], out=target)
    kept = {path for pattern in TABLES for path in (target / "tables").glob(pattern)}
    for path in set((target / "tables").iterdir()) - kept:
        path.unlink()
    figure = target / "figures" / "consolidated.png"
    if not figure.exists():
        raise ResultsError("no trial has a score", file=str(source), cure="publish a study that has results")
    # Lines and even surfaces: 256 colours show them alike, in a third of the bytes.
    Image.open(figure).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(figure, optimize=True)
    for name in (*OF_A_STUDY, Results(source).study.name):
        if (source / name).exists():
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, target / name)
    pack(Results(source), target / PACKED)


def pack(results: Results, path: Path) -> None:
    """Pack the records and curves of all trials into one archive: equal trials give equal bytes."""
    with tarfile.open(path, "w:xz", preset=9) as archive:
        for folder in results.folders():
            for name in OF_A_TRIAL:
                if (file := folder.path / name).exists():
                    member = tarfile.TarInfo(f"trials/{folder.name}/{name}")
                    member.size = file.stat().st_size
                    archive.addfile(member, io.BytesIO(file.read_bytes()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Publish the studies named, and print how large each part has become."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", help="folders below results/")
    for study in parser.parse_args(arguments).studies:
        target = RESULTS / "published" / study
        try:
            publish(RESULTS / study, target)
        except ResultsError as error:
            parser.error(f"{study}: {error}")
        sizes = {part.name: size_of(part) / MEGABYTE for part in sorted(target.iterdir(), key=size_of, reverse=True)}
        listed = ", ".join(f"{name} {size:.2f}" for name, size in sizes.items() if size >= 0.01)
        print(f"{study}: {sum(sizes.values()):.2f} MB ({listed})")


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


if __name__ == "__main__":
    main()
