"""Where the time of a run goes, read from its results folder. `python -m benchmarks.phases results/<study>`."""

from __future__ import annotations

import argparse
import itertools
import statistics
from dataclasses import dataclass
from pathlib import Path

from ablate.records.record import Record
from ablate.records.store import Results

PHASES = {
    "start_up": "before the worker's first trial: imports, data, plan, the worker's process",
    "training": "training steps, less what warming up cost",
    "warming_up": "what the first trial of a variant on a worker trained longer than its others (compiling)",
    "validation": "validation",
    "test": "the test pass and the probes on it",
    "rest_of_trials": "the rest of the trials: building the network, epoch boundaries, checkpoints, writing the record",
    "between_trials": "from one trial's record to the worker's next trial",
    "idle": "the worker had no trial left while another still ran",
    "closing": "after the last trial: closing the ledger and the tracker, ending the workers",
}


@dataclass(frozen=True)
class _Span:
    """One trial on its worker, in seconds since the epoch."""

    worker: int
    begin: float
    end: float
    record: Record


def phases(results: Path, *, began: float, ended: float) -> dict[str, float]:
    """Seconds of the wall clock by phase, averaged over the workers, of one run from `began` to `ended` (time.time()).

    They add up to the wall-clock time. A trial's begin is the time of its lock file, its end that of its record. The
    folder has to be of this one run, without retries.
    """
    spans = _spans(results)
    workers = sorted({span.worker for span in spans})
    last = max(span.end for span in spans)
    total = dict.fromkeys(PHASES, 0.0)
    for worker in workers:
        own = sorted((span for span in spans if span.worker == worker), key=lambda span: span.begin)
        total["start_up"] += own[0].begin - began
        total["between_trials"] += sum(after.begin - before.end for before, after in itertools.pairwise(own))
        total["idle"] += last - own[-1].end
        for span in own:
            timing = span.record.timing
            known = {name: float(timing.get(f"{name}_s", 0.0)) for name in ("train", "validation", "test")}
            total["validation"] += known["validation"]
            total["test"] += known["test"]
            warm = _warm_up(span, own)
            total["warming_up"] += warm
            total["training"] += known["train"] - warm
            total["rest_of_trials"] += span.end - span.begin - sum(known.values())
    averaged = {name: seconds / len(workers) for name, seconds in total.items()}
    averaged["closing"] = ended - last
    return averaged


def _spans(results: Path) -> list[_Span]:
    folder = Results(results)
    spans = []
    for trial in folder.folders():
        if trial.record.exists() and trial.lock.exists():
            record = Record.model_validate_json(trial.record.read_bytes())
            worker = int(record.provenance.get("pid", 0))
            spans.append(_Span(worker, trial.lock.stat().st_mtime, trial.record.stat().st_mtime, record))
    if not spans:
        raise ValueError(f"no finished trials in {results}")
    return spans


def _warm_up(span: _Span, own: list[_Span]) -> float:
    """Seconds by which the variant's first trial on a worker trained longer than its others of as many epochs."""
    alike = [
        other
        for other in own
        if other.record.variant == span.record.variant
        and other.record.train["epochs"] == span.record.train["epochs"]
        and other.record.status == "complete"
    ]
    if len(alike) < 2 or alike[0] is not span:
        return 0.0
    usual = statistics.median(float(other.record.timing["train_s"]) for other in alike[1:])
    return max(0.0, float(span.record.timing["train_s"]) - usual)


def main() -> None:
    """Print the phases of a finished run (start-up and closing are seen only by who started it)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    arguments = parser.parse_args()
    spans = _spans(arguments.results)
    # The lock of the folder is taken first of all and noted once.
    began = (arguments.results / ".lock").stat().st_mtime
    for name, seconds in phases(arguments.results, began=began, ended=max(span.end for span in spans)).items():
        print(f"{seconds:9.2f} s  {name}: {PHASES[name]}")


if __name__ == "__main__":
    main()
