"""The driver: pending trials to an executor and what becomes of them to the listeners, until all is done."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ablate.errors import DataError, Problem, ResultsError
from ablate.records.files import write_atomic
from ablate.records.record import FINISHED, Record, computed_by, computed_differently
from ablate.records.store import TrialFolder, finite, publish_record, quarantine, read_record, to_json
from ablate.run.cluster.jobs import ClusterExecutor, Engine
from ablate.run.display import Display, closing_notes
from ablate.run.events import (
    Begun,
    Dropped,
    Ended,
    Epoch,
    Event,
    Failed,
    Finished,
    Listener,
    Planned,
    Profiled,
    Said,
    Stopped,
    WorkerEvent,
    one_line,
)
from ablate.run.executor import LocalExecutor, on_signals
from ablate.run.join import JoinedExecutor, Share
from ablate.run.manifest import enter_plan
from ablate.run.merge import check_alike
from ablate.run.optuna_mirror import OptunaMirror, mirror_of
from ablate.run.setup import Plugins, Prepared, reusable, trackers
from ablate.run.status import TrialFolders
from ablate.run.worker import Assignment
from ablate.study.trial import Trial

# How long running trials have to write their checkpoints once they are asked to stop.
GRACE_SECONDS = 30.0
# Why a run stops that leaves its trials to a cluster.
DETACHED = "detached"


@dataclass
class Outcome:
    """The end of a run: the exit code and what is worth a line on the terminal."""

    exit_code: int = 0
    notes: list[str] = field(default_factory=list)


Executor = LocalExecutor | ClusterExecutor


@dataclass(eq=False)
class Driver:
    """Runs what is missing of a prepared study.

    Here, with a `share` of the folder, or by an `engine`; `detach` leaves its jobs queued.
    """

    prepared: Prepared
    display: Display
    _: KW_ONLY
    plugins: Plugins
    wanted: Callable[[Trial], bool] = lambda _trial: True
    retry: bool = False
    profile: bool = True
    origin: Path | None = None
    engine: Engine | None = None
    detach: bool = False
    mixed_devices: bool = False
    share: Share | None = None

    def __post_init__(self) -> None:
        self.study, self.results = self.prepared.study, self.prepared.results
        self.outcome = Outcome()
        self.plan = list(self.prepared.plan)
        self.folders = TrialFolders(self.results)
        self.records: dict[str, Record] = {}
        self.reusable: dict[str, Path] = {}
        self.reused: list[TrialFolder] = []
        self.failures: Counter[str] = Counter()
        self.pending: list[Trial] = []
        self.running: dict[str, Trial] = {}
        self.listeners: list[Listener] = [self.display]
        self.begun = 0
        self.stopping: str | None = None
        self.signals = 0
        self.problems: tuple[Problem, ...] = ()
        self._asked, self._stopped_at = False, 0.0

    # -- before and after ---------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Run until every wanted trial has a record, or the run is stopped.

        Raises `DataError`, when the running trials have left their checkpoints, where the data of a worker are not
        those that the run began with.
        """
        self.reusable = reusable(self.study, self.prepared.dataset.fingerprint)
        self._enter(self.plan)
        self._compare_with_earlier()
        if self.share is None or self.share.holds:  # one process writes the mirror
            self._attempt(OptunaMirror.title, lambda: self.listeners.append(self._mirror()))
        self._attempt("tracking", lambda: self.listeners.extend(trackers(self.study, self.results)))
        executor = self.executor()
        try:
            with on_signals(self._on_signal), self.display.live():
                self._phase(executor, self.plan)
                self._later_phases(executor)
                self._profile(executor)
        finally:
            executor.close()
            for trial in list(self.running.values()):
                self._tell(Dropped(trial))
            for listener in self.listeners:
                self._attempt(listener.title, lambda: self._note(*listener.close()))  # noqa: B023 (called at once)
        if self.problems:
            with self.study.located():
                raise DataError(self.problems)
        self._conclude()
        return self.outcome

    def _read_records(self, trials: Sequence[Trial]) -> None:
        """Take in the records that stand, wherever a trial lies; one of another trial is put aside."""
        for trial in trials:
            folder = self.folder(trial)
            record = read_record(folder.record)
            if record is not None and record.key != trial.key:
                aside = quarantine(folder.record, f"the record of another trial ({record.key})")
                self.display.say(f"{trial.name}: the record in its folder is another trial's; moved to {aside.name}")
            elif record is not None:
                self.records[trial.key] = record
                if record.status in FINISHED:  # killed between its record and this
                    folder.drop_checkpoints()

    def _compare_with_earlier(self) -> None:
        """Say where the trials that stand, and those to come, are not computed alike."""
        found = [computed_by(record.provenance) for record in self.records.values()]
        if any(self._is_pending(trial) for trial in self.plan):
            found.append(self._computing())
        if differ := computed_differently(found):
            self.display.say(f"the trials are not all computed alike: {'; '.join(differ)}")

    def _computing(self) -> dict[str, str]:
        """Return how the trials of this run are computed, as `computed_by` says it of records."""
        decisions = self.prepared.decisions
        how = {"engine": decisions.engine, "precision": decisions.precision}
        return computed_by(self.prepared.provenance | {"device": self.prepared.devices[0], "arithmetic": how})

    def folder(self, trial: Trial) -> TrialFolder:
        """Return where the trial lies."""
        return self.folders.of(trial.key, trial.name)

    def _enter(self, trials: Sequence[Trial]) -> None:
        """Enter trials in the plan, with what stands of them here and in the folders that may be reused."""
        self._read_records(trials)
        wanted = [trial for trial in trials if trial.key in self.reusable and trial.key not in self.records]
        if wanted and not self.mixed_devices:
            check_alike((self.reusable[trial.key] for trial in wanted), self._computing(), self.results.path)
        for trial in wanted:
            self.results.trial(trial.name).copy_from(TrialFolder(self.reusable[trial.key]))
        self._read_records(wanted)
        self.reused += map(self.folder, wanted)
        enter_plan(self.results, {self.folder(trial).name: trial for trial in trials})

    def _mirror(self) -> OptunaMirror:
        mirror = mirror_of(self.study, self.results, self.plan)
        known = [(trial, self.records[trial.key]) for trial in self.plan if trial.key in self.records]
        if mirror.synchronise(known, lambda trial: self.folder(trial).epochs):
            self._note(*mirror.notes)
        return mirror

    def executor(self) -> Executor:
        """Return what runs the trials, here or on a cluster."""
        run, decisions = self.study.spec.run, self.prepared.decisions
        assignment = Assignment(
            results=self.results.path,
            base=self.study.base,
            plugins=self.plugins.files,
            origin=self.origin,
            fingerprints=self.prepared.fingerprints,
            provenance=self.prepared.provenance,
            device=self.prepared.devices[0],
        )
        shared: dict[str, Any] = {
            "trial_timeout": run.trial_timeout,
            "folder_of": lambda trial: self.folder(trial).name,
        }
        if self.engine is not None:
            shared |= {"device_class": decisions.device, "detach": self.detach}
            return ClusterExecutor(self.engine, run.cluster, assignment, **shared)
        executor = LocalExecutor if self.share is None else partial(JoinedExecutor, share=self.share)
        return executor(
            assignment,
            devices=self.prepared.devices,
            workers=decisions.workers,
            threads=decisions.threads,
            keeps_steps=decisions.keeps_steps,
            should_stop=lambda: self.stopping is not None,
            **shared,
        )

    def _phase(self, executor: Executor, trials: Sequence[Trial]) -> None:
        """Run those of `trials` that have no finished record."""
        self.pending = [trial for trial in trials if self._is_pending(trial)]
        # The longest first: one begun last would leave the other workers idle. The order of the plan among equals.
        flops = {name: item["forward_flops"] or 0 for name, item in self.results.read_run()["variants"].items()}
        self.pending.sort(key=lambda trial: -flops[trial.variant] * trial.train["epochs"])
        self._tell(Planned(self.plan, self.records, self.pending))
        while (self.pending or self.running) and not self._is_over(executor):
            while self.pending and executor.free() and self.stopping is None and self._start(executor):
                pass
            for event in executor.events(timeout=0.2):
                self._handle(event)
            self.display.refresh()
            if self.detach and not self.pending:
                self._asked = True  # to nobody
                self.interrupt(DETACHED)
                break

    def _is_pending(self, trial: Trial) -> bool:
        record = self.records.get(trial.key)
        return self.wanted(trial) and (record is None or (self.retry and record.status not in FINISHED))

    def _is_over(self, executor: Executor) -> bool:
        """Return whether a run that is being stopped can end; ask the running trials to stop, once."""
        if self.stopping is None:
            return False
        if not self._asked:
            self._asked = True
            executor.stop(self.stopping)
        return not self.running or self.signals > 1 or time.monotonic() - self._stopped_at > GRACE_SECONDS

    def _later_phases(self, executor: Executor) -> None:
        """Run what rests on trials that have run: a search's rounds, rates beyond an edge, screening again, looks."""
        spec = self.study.spec
        if spec.search is None and spec.on_edge != "extend" and spec.screen is None and spec.confirm is None:
            return
        # Choosing takes the statistics along, which most runs can do without.
        from ablate.run.followups import later_trials

        further = later_trials(self.study, self.results, lambda: all(trial.key in self.records for trial in self.plan))
        while self.stopping is None and (trials := next(further, None)) is not None:
            self.plan += trials
            self._enter(trials)
            self._phase(executor, trials)

    def _profile(self, executor: Executor) -> None:
        measure = self.study.spec.measure
        if self.share is not None and not self.share.holds:  # whoever holds the folder by then measures
            return
        if not (self.profile and measure.profile) or self.stopping is not None or self.results.profile.exists():
            return
        self.display.say(f"profiling each variant alone on the device (at most {measure.profile_seconds:.0f} s)")
        found = executor.profile(measure.profile_seconds, lambda: self.stopping is not None)
        if isinstance(found, Profiled):
            write_atomic(self.results.profile, to_json(found.profile))
        else:
            self._note(f"no profile: {found.reason}")

    def _start(self, executor: Executor) -> bool:
        """Start a pending trial; False where other runs of the folder have all of them."""
        trial = executor.start(self.pending)
        if trial is None:
            return False
        self.pending.remove(trial)
        self.running[trial.name] = trial
        self.begun += 1
        self._tell(Begun(trial))
        return True

    def _handle(self, event: WorkerEvent) -> None:
        if isinstance(event, Epoch) and event.trial in self.running:
            self._tell(event)
        elif isinstance(event, Finished) and event.trial in self.running:
            self._ended(self.running.pop(event.trial), event.record)
        elif isinstance(event, Finished):  # another run of the folder had it
            for trial in [trial for trial in self.pending if trial.name == event.trial]:
                self.pending.remove(trial)
                self._ended(trial, event.record)
        elif isinstance(event, Stopped) and event.trial in self.running:
            self._stopped(self.running.pop(event.trial), event.reason)
        elif isinstance(event, Failed):
            self._failed(event)
        elif isinstance(event, Said):
            self.display.say(event.text)

    def _tell(self, event: Event) -> None:
        """Pass an event on; a listener that fails is left behind, the run goes on."""
        for listener in list(self.listeners):
            if not self._attempt(listener.title, listener.on, event):
                self.listeners.remove(listener)

    def _attempt(self, title: str, act: Callable[..., Any], *arguments: Any) -> bool:
        """Do for a listener what must not spoil the run; False, and a note, where it failed."""
        try:
            act(*arguments)
        except Exception as error:
            self._note(f"{title} failed ({one_line(error, self.results.path)}); the records are complete without it")
            return False
        return True

    def _note(self, *notes: str) -> None:
        self.outcome.notes += [note for note in notes if note not in self.outcome.notes]

    def _ended(self, trial: Trial, record: Record) -> None:
        self.records[trial.key] = record
        self._tell(Ended(trial, record))

    def _stopped(self, trial: Trial, reason: str) -> None:
        """Leave a trial without a record; where its worker alone was stopped it goes on in this run."""
        self._tell(Dropped(trial))
        if self.stopping is None and reason in signal.Signals.__members__:
            self.display.say(f"{trial.name}: its worker got {reason}; it goes on from its checkpoint")
            self.pending.append(trial)
        elif self.stopping is None:
            self._note(f"{trial.name}: {reason}")

    def _failed(self, event: Failed) -> None:
        trial = self.running.pop(event.trial, None) if event.trial else None
        if trial is not None:
            with contextlib.suppress(ResultsError, OSError):
                self._read_records([trial])
            record = self.records.get(trial.key)
            # Its worker may have died between the record and the word of it.
            if record is not None and record.status in FINISHED:
                self._ended(trial, record)
                return
            with contextlib.suppress(OSError):
                if event.traceback:
                    write_atomic(self.folder(trial).path / "error.txt", event.traceback.encode(), lasting=False)
        if event.problems:  # nothing counts as failed that the user has to mend first
            self.problems = event.problems
            self.interrupt("problem")
        if event.pause:
            if self.stopping is None:  # every worker meets the same full disk
                self._note(f"the study pauses: {event.reason}; once that is mended, the same command goes on")
            self.outcome.exit_code = 1
            self.interrupt("pause")
        if trial is None:
            return
        if self.stopping is not None:  # nothing counts as failed that was being stopped: it is run again
            self._tell(Dropped(trial))
            return
        self.failures[trial.key] += 1
        attempts = self.study.spec.run.attempts
        if self.failures[trial.key] < attempts:
            following = self.failures[trial.key] + 1
            self.display.say(f"{trial.name}: {event.reason}; attempt {following} of {attempts} follows")
            self._tell(Dropped(trial))
            self.pending.append(trial)
            return
        tried = finite(self.failures[trial.key])
        record = Record.of(trial, "failed", reason=event.reason, metrics={"attempts": tried})
        with contextlib.suppress(OSError):
            folder = self.folder(trial)
            folder.make()
            publish_record(folder, record)
        self._ended(trial, record)

    def _on_signal(self, number: int) -> None:
        self.signals += 1
        self.outcome.exit_code = 128 + number
        self.interrupt(signal.Signals(number).name)

    def interrupt(self, reason: str) -> None:
        """Have no more trials started, and the running ones asked for a checkpoint."""
        if self.stopping is None:
            self._stopped_at = time.monotonic()
            self.stopping = reason

    def _conclude(self) -> None:
        if self.stopping == DETACHED:
            self._note(f"{len(self.running)} trials are in the cluster's queue; the same command gathers them")
        if self.outcome.exit_code or self.stopping == DETACHED:
            return
        self._note(*closing_notes(self.plan, self.records, begun=self.begun))
        missing = [trial.name for trial in self.plan if self.wanted(trial) and trial.key not in self.records]
        if missing:
            self._note(
                f"without a record: {', '.join(missing[:3])}{' …' * (len(missing) > 3)}; the same command goes on"
            )
        elif self.study.spec.confirm is not None and any(trial.key not in self.records for trial in self.plan):
            self._note("confirming waits for the trials that --only left out: run the study without it")
        if missing or any(self.records[t.key].status == "failed" for t in self.plan if t.key in self.records):
            self.outcome.exit_code = 1
