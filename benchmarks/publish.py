"""Publish a study below `results/published/`: `python -m benchmarks.publish unet-street`, or `make publish STUDY=...`.

What a reader needs and no more: the page, the consolidated figure, the tables as CSV, the study, and the records with
their curves in one archive, which `ablate` reads as it is. Not weights, predictions and pictures of the data. The
training loss and gradient norm of each step are rounded to 8 significant bits (to 0.4 %), or to as many more as leave
every spike where it is; what is measured of them is stated as it was before, in `published.json` beside each record.
All else is kept as it is.

`--repack` packs the trials of a folder anew that is published already, and leaves all else in it.
"""

from __future__ import annotations

import argparse
import io
import math
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from ablate.analysis.load import Arrays, measured
from ablate.errors import ResultsError
from ablate.measure.stability import spike_steps
from ablate.records.files import durable, size_of
from ablate.records.images import pack_counts, read_arrays
from ablate.records.record import EXACT_BITS, LEAST_BITS, MeasureOfSteps, Record
from ablate.records.store import PACKED, Results, TrialFolder, read_record, to_json
from ablate.report.build import build_report
from ablate.run.verify import faults_of_trial

RESULTS = Path(__file__).resolve().parents[1] / "results"
OF_A_STUDY = ("run.json", "profile.json", "test/index.json")
OF_A_TRIAL = ("epochs.jsonl", "images.npz", "published.json", "record.json", "steps.f32")
COUNTS = ("val", "test", "test_loss")
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
    with tempfile.TemporaryDirectory() as scratch:
        folders = [make_lean(folder, Path(scratch) / folder.name) for folder in results.folders()]
        with durable(path) as handle, tarfile.open(fileobj=handle, mode="w:xz", preset=9) as archive:
            # Like beside like, of which xz makes more.
            for name in OF_A_TRIAL:
                for folder in folders:
                    if (file := folder.path / name).exists():
                        member = tarfile.TarInfo(f"trials/{folder.name}/{name}")
                        member.size = file.stat().st_size
                        archive.addfile(member, io.BytesIO(file.read_bytes()))


def make_lean(source: TrialFolder, path: Path) -> TrialFolder:
    """Write the files of a trial that are published into the new folder `path`, its steps rounded; return it.

    Its `published.json` says what has changed. One that has such a note is lean already, and stays as it is. Raises
    `ResultsError` for a damaged trial: what is published of it would hide that.
    """
    for fault in faults_of_trial(source, None):
        raise ResultsError(fault.message, file=str(fault.file), cure="see `ablate verify`")
    path.mkdir()
    for name in OF_A_TRIAL:
        if (source.path / name).exists():
            shutil.copyfile(source.path / name, path / name)
    lean = TrialFolder(path)
    record = read_record(source.record)
    if record is None or lean.published.exists():
        return lean
    if lean.images.exists():
        lean.images.write_bytes(pack_counts(read_arrays(source.images, COUNTS)))
    bits, measures = EXACT_BITS, dict[str, float]()
    if lean.steps.exists():
        bits, measures = _round_steps(lean, record)
    digests = lean.digests((lean.images.name, lean.steps.name))
    changed = {name: digest for name, digest in digests.items() if record.files.get(name) != digest}
    lean.published.write_bytes(to_json({"files": changed, "significant_bits": bits, "measures": measures}))
    return lean


def _round_steps(lean: TrialFolder, record: Record) -> tuple[int, dict[str, float]]:
    """Round the steps to as few bits as leave all measures but a `MeasureOfSteps`; return these as they were."""
    exact = Arrays(lean, record)
    spikes, before = spike_steps(exact.steps).tolist(), measured(exact)
    for bits in range(LEAST_BITS, EXACT_BITS + 1):
        fewer = Arrays(lean, record)
        fewer.steps = rounded(exact.steps, bits)
        after = {name: one.value for name, one in measured(fewer).items()}
        moved = {name: one.value for name, one in before.items() if not _same(one.value, after[name])}
        stated = all(
            name in get_args(MeasureOfSteps) and math.isfinite(value) and math.isfinite(after[name])
            for name, value in moved.items()
        )
        if stated and spike_steps(fewer.steps).tolist() == spikes:
            break
    lean.steps.write_bytes(fewer.steps.tobytes())
    return bits, moved


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Return float32 values to so many significant bits; what is not finite stays as it is."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2**bits) / 2**bits, exponent)


def main(arguments: Sequence[str] | None = None) -> None:
    """Publish the studies named, and print how large each part has become."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", help="folders below results/")
    parser.add_argument("--repack", action="store_true", help="pack the trials of published folders anew")
    options = parser.parse_args(arguments)
    for study in options.studies:
        target = RESULTS / "published" / study
        try:
            if options.repack:
                pack(Results(target), target / PACKED)
            else:
                publish(RESULTS / study, target)
        except ResultsError as error:
            parser.error(f"{study}: {error}")
        sizes = {part.name: size_of(part) / MEGABYTE for part in sorted(target.iterdir(), key=size_of, reverse=True)}
        listed = ", ".join(f"{name} {size:.2f}" for name, size in sizes.items() if size >= 0.01)
        print(f"{study}: {sum(sizes.values()):.2f} MB ({listed})")


if __name__ == "__main__":
    main()
