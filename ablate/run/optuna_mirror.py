"""The Optuna side of a study: numbers, states, intermediate values and attributes, mirrored from the records.

With `search`, which proposes settings, the only file that imports optuna. The record files are the truth; what stands
here can be thrown away and is rebuilt whenever it does not agree with them. One process, the driver, talks to it.
A database that several studies share has an Optuna study for each results folder, and nobody touches another's.
"""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from ablate.errors import ResultsError
from ablate.records.files import sha256
from ablate.records.record import Record
from ablate.records.store import Results, read_lines
from ablate.run.events import Begun, Dropped, Ended, Epoch, Event, Planned
from ablate.run.search import mirror_axes, plain
from ablate.study.study import Study
from ablate.study.trial import Trial, without_folder

optuna.logging.set_verbosity(optuna.logging.WARNING)

STATES = {
    "complete": TrialState.COMPLETE,
    "diverged": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


# Metrics that get a column of their own in the dashboard; the others stand together in one, because every attribute
# is a line of the journal, and a journal of 10,000 trials has to be read in seconds.
COLUMNS = ("best_epoch", "test_mean_iou")


# Epochs are written no sooner again than after so many times what the last writing took: with a thousand workers and a
# slow disk the driver would do nothing else.
REST = 10
# How long another process may hold the journal's lock.
LOCK_SECONDS = 10.0


class _JournalLock(JournalFileOpenLock):
    """A lock that the kernel frees with its process; Optuna's own are files, which a killed driver leaves behind."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._held = FileLock(path, timeout=LOCK_SECONDS)

    def acquire(self) -> bool:
        """Wait for the lock; raises `filelock.Timeout` where another process does not give it back."""
        self._held.acquire()
        return True

    def release(self) -> None:
        """Give the lock back."""
        self._held.release()


class _Journal(BaseJournalBackend):
    """Optuna's journal file, written in batches: one lock and one fsync for all that a call changes.

    Only the driver writes while it runs, so what is in the file is read once, at the start.
    """

    def __init__(self, path: Path) -> None:
        self._file = JournalFileBackend(str(path), lock_obj=_JournalLock(path.with_name(".optuna.lock")))
        self._begun = False
        self._unread: list[dict[str, Any]] = []
        self._unwritten: list[dict[str, Any]] = []
        self._next = 0.0

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return what was there before, then what was appended since the last reading."""
        if not self._begun:
            self._begun = True
            return self._file.read_logs(log_number_from)
        logs, self._unread = self._unread, []
        return logs

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Keep `logs` until `flush`; they are read as the file would give them back."""
        self._unread += json.loads(json.dumps(logs))
        self._unwritten += logs

    def flush(self, *, now: bool = True) -> None:
        """Write what was kept; unless `now`, only where that took little of the time since the last writing."""
        began = time.monotonic()
        if self._unwritten and (now or began >= self._next):
            logs, self._unwritten = self._unwritten, []
            self._file.append_logs(logs)
            self._next = time.monotonic() + REST * (time.monotonic() - began)


class OptunaMirror:
    """An Optuna study that maximises val mIoU at the best epoch; a diverged trial scores 0."""

    title = "the Optuna mirror"

    def __init__(
        self,
        journal: Path,
        name: str,
        plan: Sequence[Trial],
        url: str | None = None,
        axes: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        """Open or make the Optuna study called `name`, in the storage `url` or else in the journal file.

        `axes` describe settings that are searched, of which the plan does not show the whole range.
        """
        self._journal, self._name, self._url, self._axes = journal, name, url, dict(axes or {})
        self._distributions = distributions(plan) | self._axes
        self._open: dict[str, int] = {}
        self.notes: list[str] = []
        self._connect()

    def on(self, event: Event) -> None:
        """Take in an event of the run."""
        if isinstance(event, Planned):
            self._distributions = distributions(event.plan) | self._axes
        elif isinstance(event, Begun):
            self.begin(event.trial)
        elif isinstance(event, Epoch):
            self.report(event.trial, event.epoch, event.val_mean_iou)
        elif isinstance(event, Ended):
            if event.trial.name not in self._open:  # another run of the folder ran it
                self.begin(event.trial)
            self.end(event.trial.name, event.record)
        elif isinstance(event, Dropped):
            self.end(event.trial.name, None)

    def close(self) -> list[str]:
        """Close trials that are still open; the journal is written already."""
        for trial in list(self._open):
            self.end(trial, None)
        self._flush()
        return []

    def _connect(self) -> None:
        try:
            self._create()
        except Timeout:
            raise  # another process has the journal's lock: nothing is wrong with the journal
        except Exception as error:
            if self._url is not None:
                raise
            # A torn line makes the whole journal unreadable; it is only a mirror.
            aside = self._journal.with_name(self._journal.name + ".bad")
            self._journal.replace(aside)
            self.notes.append(
                f"Optuna's journal was unreadable ({type(error).__name__}) and is rebuilt from the records"
            )
            self._create()

    def _create(self) -> None:
        self._batch = None if self._url else _Journal(self._journal)
        self._storage: BaseStorage = (
            JournalStorage(self._batch) if self._batch is not None else optuna.storages.get_storage(self._url)
        )
        self.study = optuna.create_study(
            study_name=self._name, storage=self._storage, direction="maximize", load_if_exists=True
        )
        self._study_id = self._storage.get_study_id_from_name(self._name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls names of values experimental
            if self.study.metric_names is None:
                self.study.set_metric_names(["val mIoU"])
        self.study.get_trials(deepcopy=False)  # reads the journal through, so that damage shows now
        self._flush()

    def _flush(self, *, now: bool = True) -> None:
        if self._batch is not None:
            self._batch.flush(now=now)

    def synchronise(self, known: Sequence[tuple[Trial, Record]], curve_of: Callable[[Trial], Path]) -> bool:
        """Make the Optuna study agree with the records; True where it had to be rebuilt.

        `known` holds the planned trials that have one, `curve_of` gives a trial's file of epochs. It agrees where the
        finished trials are the records', by key and state, and every distribution is the plan's: a level added to a
        study breaks Optuna's, so it is made anew.
        """
        wanted = {record.key: STATES[record.status] for _, record in known}
        there = {}
        for row in self.study.get_trials(deepcopy=False):
            if row.state == TrialState.RUNNING:
                # Its driver was killed: nothing will ever end it.
                with contextlib.suppress(Exception):
                    self.study.tell(row.number, state=TrialState.FAIL)
                self._flush()
            elif row.state.is_finished() and "key" in row.user_attrs:
                there[row.user_attrs["key"]] = row  # a later try at the same trial stands for it
        same = {key: row.state for key, row in there.items() if key in wanted} == wanted
        stray = [key for key, row in there.items() if key not in wanted and row.state != TrialState.FAIL]
        fits = all(row.distributions == self._distributions for row in there.values())
        if same and fits and not stray:
            return False
        self._discard()
        for trial, record in known:
            self._storage.create_new_trial(self._study_id, self._frozen(trial, record, curve_of(trial)))
        self._flush()
        return True

    def _discard(self) -> None:
        if self._url is None:
            self._journal.unlink(missing_ok=True)
        else:
            optuna.delete_study(study_name=self._name, storage=self._storage)
        self._create()

    def _frozen(
        self, trial: Trial, record: Record, curve: Path, attached: Mapping[str, Any] | None = None
    ) -> FrozenTrial:
        """Return a finished trial with the times at which it began and ended, and what is `attached` to it."""
        state = STATES[record.status]
        values = {row["epoch"]: row["val_mean_iou"] for row in read_curve(curve) if row["val_mean_iou"] is not None}
        frozen = optuna.trial.create_trial(
            state=state,
            value=_value(record) if state == TrialState.COMPLETE else None,
            params=self._params(trial),
            distributions=self._distributions,
            user_attrs=_identity(trial) | _outcome(record),
            system_attrs=dict(attached or {}),
            intermediate_values=values,
        )
        frozen.datetime_start, frozen.datetime_complete = _times(record, curve)
        return frozen

    def _params(self, trial: Trial) -> dict[str, Any]:
        given = {"variant": trial.variant, **trial.settings, "seed": trial.seed}
        return {name: plain(given[name]) for name in self._distributions}

    def begin(self, trial: Trial) -> None:
        """Enter a trial that starts now."""
        entered = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=self._params(trial),
            distributions=self._distributions,
            user_attrs={"name": trial.name, **_identity(trial)},
        )
        self._open[trial.name] = self._storage.create_new_trial(self._study_id, entered)
        self._flush()

    def report(self, trial: str, epoch: int, value: float | None) -> None:
        """Enter an intermediate value (val mIoU after `epoch`) of a running trial."""
        if trial in self._open and value is not None:
            self._storage.set_trial_intermediate_value(self._open[trial], epoch, value)
            self._flush(now=False)

    def end(self, trial: str, record: Record | None) -> None:
        """Close a trial by its record, or as failed where it left none."""
        number = self._open.pop(trial, None)
        if number is None:
            return
        if record is None:
            self._storage.set_trial_state_values(number, TrialState.FAIL)
        else:
            for name, value in _outcome(record).items():
                self._storage.set_trial_user_attr(number, name, value)
            state = STATES[record.status]
            values = [_value(record)] if state == TrialState.COMPLETE else None
            self._storage.set_trial_state_values(number, state, values)
        self._flush()

    def lack_pictures(self) -> bool:
        """Return whether a trial with a result has no pictures for the dashboard yet."""
        return any(
            trial.state == TrialState.COMPLETE and not any(name.startswith("artifacts:") for name in trial.system_attrs)
            for trial in self.study.get_trials(deepcopy=False)
        )

    def replay(
        self,
        known: Sequence[tuple[Trial, Record]],
        curve_of: Callable[[Trial], Path],
        pictures: Callable[[Trial], list[Path]],
        folder: Path,
    ) -> None:
        """Make the Optuna study anew, with each trial's pictures as artifacts stored under `folder`.

        Anew, because Optuna lets nothing be attached to a trial that has ended.
        """
        self._discard()
        store = optuna.artifacts.FileSystemArtifactStore(folder)
        for trial, record in known:
            # Attached to a trial that runs in memory, and taken over from there.
            memory = InMemoryStorage()
            scratch = optuna.create_study(storage=memory)
            scratch.ask()
            for picture in pictures(trial):
                optuna.artifacts.upload_artifact(
                    artifact_store=store,
                    file_path=str(picture),
                    study_or_trial=scratch.trials[0],
                    storage=memory,
                )
            attached = scratch.trials[0].system_attrs
            self._storage.create_new_trial(self._study_id, self._frozen(trial, record, curve_of(trial), attached))
        self._flush()


def mirror_of(study: Study, results: Results, plan: Sequence[Trial]) -> OptunaMirror:
    """Return the mirror of a results folder.

    In a storage of the study's choice its Optuna study is named by the folder's own id, too: other folders and other
    people may keep theirs there.
    """
    axes = mirror_axes(study) if study.spec.search is not None else None
    url = study.spec.run.storage
    # A folder that an earlier version made has no id: its place stands for it until it is run again.
    own = results.read_run().get("id") or sha256(str(results.path.resolve()).encode())[:12]
    name = study.name if url is None else f"{study.name}-{own}"
    return OptunaMirror(results.journal, name, plan, url, axes)


def _times(record: Record, curve: Path) -> tuple[datetime, datetime]:
    """Return when a trial began and ended: its record was written at the end, and holds the seconds that it took."""
    written = curve.with_name("record.json")
    end = datetime.fromtimestamp(written.stat().st_mtime) if written.exists() else datetime.now()
    return end - timedelta(seconds=float(record.timing.get("wall_s") or 0.0)), end


def read_curve(path: Path) -> list[dict[str, Any]]:
    """Return a trial's epochs; none where the file is damaged, since nothing depends on the mirror's."""
    try:
        return read_lines(path)
    except (ResultsError, UnicodeDecodeError):
        return []


def distributions(plan: Sequence[Trial]) -> dict[str, BaseDistribution]:
    """Return Optuna's description of the plan's axes: variant, every setting of the grid, seed."""
    found: dict[str, BaseDistribution] = {
        "variant": CategoricalDistribution(list(dict.fromkeys(trial.variant for trial in plan)))
    }
    for axis in dict.fromkeys(name for trial in plan for name in trial.settings):
        levels = list(dict.fromkeys(plain(trial.settings[axis]) for trial in plan if axis in trial.settings))
        found[axis] = _axis(levels)
    found["seed"] = IntDistribution(0, 2**32 - 1)
    return found


def _axis(levels: list[Any]) -> BaseDistribution:
    if all(isinstance(level, float) for level in levels):
        return FloatDistribution(min(levels), max(levels), log=min(levels) > 0)
    if all(isinstance(level, int) and not isinstance(level, bool) for level in levels):
        return IntDistribution(min(levels), max(levels))
    return CategoricalDistribution(levels)


def _value(record: Record) -> float:
    return 0.0 if record.status == "diverged" else float(record.metrics.get("val_mean_iou") or 0.0)


def _identity(trial: Trial) -> dict[str, Any]:
    """Return what is known of a trial when it begins."""
    settings = {"variant": trial.variant, **trial.settings, "seed": trial.seed, "model": without_folder(trial.model)}
    return {"key": trial.key, "role": trial.role, "settings": settings}


def _outcome(record: Record) -> dict[str, Any]:
    """Return what the record adds."""
    return {
        "status": record.status,
        **({"reason": record.reason} if record.reason else {}),
        **{name.replace("_", " "): record.metrics[name] for name in COLUMNS if record.metrics.get(name) is not None},
        "metrics": record.metrics,
    }
