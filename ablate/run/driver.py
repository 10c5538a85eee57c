"""The driver: pending trials to an executor, events to the ledger, the display and the tracker, until all is done."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablate.records.files import write_atomic
from ablate.records.record import FINISHED, Record
from ablate.records.store import TrialFolder, finite, publish_record, read_json, read_lines, read_record, to_json
from ablate.run.executors.base import Event
from ablate.run.executors.local import LocalExecutor
from ablate.run.executors.nursery import Nursery
from ablate.run.ledger import Ledger
from ablate.run.manifest import plan_entry, resolution_of
from ablate.run.progress import Display, closing_notes
from ablate.run.setup import Plugins, Prepared, reusable
from ablate.run.tracking import Tracker
from ablate.study.study import Study
from ablate.study.trial import Trial

# How long running trials have to write their checkpoints once they are asked to stop.
GRACE_SECONDS = 30.0


@dataclass
class Outcome:
    """How a run ended: the exit code and what is worth a line on the terminal."""

    exit_code: int = 0
    notes: list[str] = field(default_factory=list)


class Driver:
    """Runs what is missing of a prepared study."""

    def __init__(
        self,
        prepared: Prepared,
        display: Display,
        *,
        plugins: Plugins,
        wanted: Callable[[Trial], bool] = lambda trial: True,
        retry: bool = False,
        profile: bool = True,
        origin: Path | None = None,
        nursery: Nursery | None = None,
    ) -> None:
        self.prepared, self.display, self.plugins = prepared, display, plugins
        self.study, self.results = prepared.study, prepared.results
        self.wanted, self.retry, self.with_profile = wanted, retry, profile
        self.origin, self.nursery = origin, nursery
        self.outcome = Outcome()
        self.plan = list(prepared.plan)
        self.records: dict[str, Record] = {}
        self.failures: Counter[str] = Counter()
        self.pending: list[Trial] = []
        self.running: dict[str, Trial] = {}
        self.begun = 0
        self.stopping: str | None = None
        self.signals = 0

    # -- before and after ---------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Until every wanted trial has a record, or the run is stopped."""
        self._read_records()
        self._reuse()
        spec = self.study.spec
        self.ledger = Ledger(self.results.journal, spec.study, self.plan, spec.run.storage, searched_axes(self.study))
        if self.ledger.synchronise(list(self.records.values()), self._curves()):
            self.outcome.notes += self.ledger.notes
        self.tracker = Tracker(spec, self.results)
        executor = self._executor()
        try:
            with self._signals(executor), self.display.live():
                self._phase(executor, self.plan)
                self._later_phases(executor)
                self._profile(executor)
        finally:
            executor.close()
            for name in list(self.running):
                self.ledger.end(name, None)
            self.outcome.notes += self.tracker.close()
        self._conclude()
        return self.outcome

    def _read_records(self) -> None:
        for trial in self.plan:
            record = read_record(self.results.trial(trial.name).record)
            if record is not None:
                self.records[trial.key] = record

    def _reuse(self) -> None:
        """Take over finished trials of other folders where the study allows it."""
        folders = [self.study.base / folder for folder in self.study.spec.run.reuse]
        resolution = resolution_of(self.study)
        found = reusable(folders, self.prepared.dataset.fingerprint, resolution) if folders else {}
        for trial in self.plan:
            source = found.get(trial.key)
            target = self.results.trial(trial.name)
            if source is None or trial.key in self.records:
                continue
            target.copy_from(TrialFolder(source))
            record = read_record(target.record)
            if record is not None:
                self.records[trial.key] = record

    def _curves(self) -> dict[str, list[dict[str, Any]]]:
        return {
            trial.key: read_lines(self.results.trial(trial.name).epochs)
            for trial in self.plan
            if trial.key in self.records
        }

    def _executor(self) -> LocalExecutor:
        spec, decisions = self.study.spec, self.prepared.decisions
        run = self.results.read_run()
        provenance = {"versions": run["versions"], "git": run["git"], "machine": run["device"]}
        if self.prepared.code_changed:
            provenance["plugin_code_changed"] = True
        return LocalExecutor(
            self.results.path,
            base=self.study.base,
            devices=self.prepared.devices,
            lanes=decisions.lanes,
            threads=decisions.threads,
            plugins=self.plugins.files,
            origin=self.origin,
            provenance=provenance,
            trial_timeout=spec.run.trial_timeout,
            keeps_steps=decisions.keeps_steps,
            nursery=self.nursery,
        )

    # -- phases -------------------------------------------------------------------------------------------

    def _phase(self, executor: LocalExecutor, trials: Sequence[Trial]) -> None:
        """Run those of `trials` that have no finished record."""
        self.pending = [trial for trial in trials if self._is_pending(trial)]
        # The longest first: a long one begun last would leave the other lanes idle. The order of the plan among equals.
        flops = {name: item["forward_flops"] or 0 for name, item in self.results.read_run()["variants"].items()}
        self.pending.sort(key=lambda trial: -flops[trial.variant] * trial.train["epochs"])
        self.display.plan(self.plan, self.records, self.pending)
        while (self.pending or self.running) and not self._is_over():
            while self.pending and executor.free() and self.stopping is None:
                self._start(executor)
            for event in executor.events(timeout=0.2):
                self._handle(event, executor)
            self.display.refresh()

    def _is_pending(self, trial: Trial) -> bool:
        record = self.records.get(trial.key)
        if not self.wanted(trial) or (record is not None and record.status in FINISHED):
            return False
        return record is None or self.retry

    def _is_over(self) -> bool:
        if self.stopping is None:
            return False
        return not self.running or self.signals > 1 or time.monotonic() - self._stopped_at > GRACE_SECONDS

    def _later_phases(self, executor: LocalExecutor) -> None:
        """What rests on trials that have run: a search's next rounds, rates beyond an edge, seeds for the chosen."""
        if self.study.spec.search is not None:
            from ablate.run.search import further_rounds

            self._run_further(executor, further_rounds(self.study, self.results))
        if self.study.spec.on_edge != "extend" and self.study.spec.confirm is None:
            return
        # Choosing takes the statistics along, which most runs can do without.
        from ablate.run.phases import beyond_edges, confirmation

        for further in (beyond_edges, confirmation):
            # Nothing is chosen from a part of the grid.
            if self.stopping is not None or any(trial.key not in self.records for trial in self.plan):
                return
            self._run_further(executor, further(self.study, self.results))

    def _run_further(self, executor: LocalExecutor, further: Iterator[list[Trial]]) -> None:
        """Run each batch of trials that only what was run before could plan; none once the run is being stopped."""
        while self.stopping is None:
            trials = next(further, None)
            if trials is None:
                return
            self.plan += trials
            self.ledger.extend(self.plan)
            self._extend_manifest(trials)
            for trial in trials:
                record = read_record(self.results.trial(trial.name).record)
                if record is not None:
                    self.records[trial.key] = record
            self._phase(executor, trials)

    def _extend_manifest(self, trials: Sequence[Trial]) -> None:
        run = self.results.read_run()
        known = {entry["key"] for entry in run["plan"]}
        run["plan"] += [plan_entry(trial) for trial in trials if trial.key not in known]
        write_atomic(self.results.run, to_json(run))

    def _profile(self, executor: LocalExecutor) -> None:
        measure = self.study.spec.measure
        if not (self.with_profile and measure.profile) or self.stopping is not None or self.results.profile.exists():
            return
        self.display.say(f"profiling each variant alone on the device (at most {measure.profile_seconds:.0f} s)")
        found = executor.profile(measure.profile_seconds, lambda: self.stopping is not None)
        if "profile" in found:
            write_atomic(self.results.profile, to_json(found["profile"]))
        else:
            self.outcome.notes.append(f"no profile: {found['reason']}")

    # -- events -------------------------------------------------------------------------------------------

    def _start(self, executor: LocalExecutor) -> None:
        trial = executor.start(self.pending)
        self.pending.remove(trial)
        self.running[trial.name] = trial
        self.begun += 1
        self.ledger.begin(trial)
        self.display.started(trial)
        self.tracker.started(trial)

    def _handle(self, event: Event, executor: LocalExecutor) -> None:
        kind, name = event["event"], event.get("trial")
        if kind == "epoch":
            self.ledger.report(event["trial"], event["epoch"], event["val_mean_iou"])
            self.display.epoch(event)
            self.tracker.epoch(event)
        elif kind == "ended" and name in self.running:
            self._ended(self.running.pop(name), Record.model_validate(event["record"]))
        elif kind == "interrupted" and name in self.running:
            trial = self.running.pop(name)
            self.ledger.end(trial.name, None)
            self.tracker.dropped(trial)
        elif kind == "failed":
            self._failed(event, executor)

    def _ended(self, trial: Trial, record: Record) -> None:
        self.records[trial.key] = record
        self.ledger.end(trial.name, record)
        self.display.ended(trial, record)
        self.tracker.ended(trial, record)

    def _failed(self, event: Event, executor: LocalExecutor) -> None:
        name = event.get("trial")
        trial = self.running.pop(name, None) if name else None
        if trial is not None and event.get("traceback"):
            with contextlib.suppress(OSError):
                write_atomic(self.results.trial(trial.name).path / "error.txt", event["traceback"].encode())
        if event.get("pause"):
            if self.stopping is None:  # every lane meets the same full disk
                self.outcome.notes.append(
                    f"the study pauses: {event['reason']}; mend it and run the same command again"
                )
            self.outcome.exit_code = 1
            if trial is not None:
                self.ledger.end(trial.name, None)
                self.tracker.dropped(trial)
            self.interrupt(executor, "pause")
            return
        if trial is None:
            return
        self.failures[trial.key] += 1
        attempts = self.study.spec.run.attempts
        if self.failures[trial.key] < attempts and self.stopping is None:
            self.display.say(
                f"{trial.name}: {event['reason']}; attempt {self.failures[trial.key] + 1} of {attempts} follows"
            )
            self.ledger.end(trial.name, None)
            self.tracker.dropped(trial)
            self.pending.append(trial)
            return
        record = failed_record(trial, event["reason"], self.failures[trial.key])
        with contextlib.suppress(OSError):
            self.results.trial(trial.name).make()
            publish_record(self.results.trial(trial.name), record)
        self._ended(trial, record)

    # -- the end ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self, executor: LocalExecutor) -> Iterator[None]:
        def on_signal(number: int, frame: Any) -> None:
            self.signals += 1
            self.outcome.exit_code = 128 + number
            self.interrupt(executor, signal.Signals(number).name)

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def interrupt(self, executor: LocalExecutor, reason: str) -> None:
        """Start no more trials and ask the running ones for a checkpoint."""
        if self.stopping is None:
            self.stopping, self._stopped_at = reason, time.monotonic()
            executor.stop(reason)

    def _conclude(self) -> None:
        if self.outcome.exit_code:
            return
        self.outcome.notes += closing_notes(self.plan, self.records, begun=self.begun)
        if any(self.records[trial.key].status == "failed" for trial in self.plan if trial.key in self.records):
            self.outcome.exit_code = 1


def searched_axes(study: Study) -> Mapping[str, Any] | None:
    """What the ledger needs to know of a search; None where there is none."""
    if study.spec.search is None:
        return None
    from ablate.run.search import ledger_axes

    return ledger_axes(study)


def failed_record(trial: Trial, reason: str, attempts: int) -> Record:
    """The record of a trial that its machine failed."""
    return Record.of(trial, "failed", reason=reason, metrics={"attempts": finite(attempts)})


def orphans(results: Any, plan: Sequence[Trial]) -> list[str]:
    """Trial folders that are no longer in the plan, because the study was edited."""
    names = {trial.name for trial in plan} | {entry["name"] for entry in results.read_run().get("plan", [])}
    return [folder.name for folder in results.folders() if folder.name not in names and read_json(folder.record)]
