"""The Optuna mirror against real journals: numbers, states, rebuilding, stale trials."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from filelock import FileLock, Timeout
from optuna.trial import TrialState

import tests.tiny_plugin  # noqa: F401  (registers the tiny components)
from ablate.records.files import lock
from ablate.records.record import Record
from ablate.records.store import Results
from ablate.run.dashboard import bring_up_to_date
from ablate.run.events import Begun, Dropped, Ended, Epoch, Event, Planned
from ablate.run.optuna_mirror import OptunaMirror
from ablate.study.reader import read_study
from ablate.study.study import Study
from ablate.study.trial import Trial
from tests.run.conftest import STUDY, Command


def study_in(folder: Path, text: str = STUDY) -> Study:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return read_study(path)


def record_of(trial: Trial, status: str = "complete", score: float | None = 0.5) -> Record:
    return Record(
        key=trial.key,
        study=trial.study,
        variant=trial.variant,
        settings=trial.settings,
        seed=trial.seed,
        model=trial.model,
        data=trial.data,
        train=trial.train,
        status=status,
        reason=None if status == "complete" else "why",
        metrics={"val_mean_iou": score, "test_mean_iou": score},
    )


@pytest.fixture
def plan(tmp_path: Path) -> list[Trial]:
    return study_in(tmp_path).trials()


def nowhere(trial: Trial) -> Path:
    """No curve of the trial."""
    return Path("nowhere") / trial.name


def known(*pairs: tuple[Trial, str]) -> list[tuple[Trial, Record]]:
    """Trials with records of these statuses."""
    return [(trial, record_of(trial, status, 0.5 if status == "complete" else None)) for trial, status in pairs]


def reopened(folder: Path) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "optuna.log"))
    return optuna.load_study(study_name="tiny", storage=optuna.storages.JournalStorage(backend))


def test_a_trial_is_asked_reported_and_told(tmp_path: Path, plan: list[Trial]) -> None:
    mirror = OptunaMirror(tmp_path / "optuna.log", "tiny", plan)
    for trial in plan[:2]:
        mirror.begin(trial)
    for epoch, value in enumerate([0.1, 0.3], start=1):
        mirror.report(plan[0].name, epoch, value)
    mirror.end(plan[0].name, record_of(plan[0], score=0.3))
    mirror.end(plan[1].name, record_of(plan[1], "diverged", None))
    trials = reopened(tmp_path).trials
    assert trials[0].state == TrialState.COMPLETE and trials[0].value == 0.3
    assert trials[0].intermediate_values == {1: 0.1, 2: 0.3}
    assert trials[0].params == {"variant": "narrow", "lr": 0.01, "seed": 0}
    assert trials[0].user_attrs["settings"]["model"] == plan[0].model
    # A diverged trial is a result that scores nothing: it can never be ranked best.
    assert trials[1].state == TrialState.COMPLETE and trials[1].value == 0.0
    assert trials[1].user_attrs["status"] == "diverged"
    assert reopened(tmp_path).best_trial.number == 0


def test_records_that_optuna_does_not_know_make_it_anew(tmp_path: Path, plan: list[Trial]) -> None:
    records = known((plan[0], "complete"), (plan[1], "diverged"), (plan[2], "failed"))
    for trial, text in zip(plan, ('{"epoch": 1, "val_mean_iou": 0.2}\n', "damaged\ndamaged\n"), strict=False):
        (tmp_path / trial.name).write_text(text)

    def curves(trial: Trial) -> Path:
        return tmp_path / trial.name

    mirror = OptunaMirror(tmp_path / "optuna.log", "tiny", plan)
    assert mirror.synchronise(records, curves) is True
    assert mirror.synchronise(records, curves) is False
    states = {trial.user_attrs["key"]: trial.state for trial in reopened(tmp_path).trials}
    assert states == {
        plan[0].key: TrialState.COMPLETE,
        plan[1].key: TrialState.COMPLETE,
        plan[2].key: TrialState.FAIL,
    }
    assert reopened(tmp_path).trials[0].intermediate_values == {1: 0.2}


def test_a_level_added_to_the_study_does_not_break_it(tmp_path: Path, plan: list[Trial]) -> None:
    first = OptunaMirror(tmp_path / "optuna.log", "tiny", plan)
    first.synchronise(known((plan[0], "complete")), nowhere)
    text = STUDY.replace("wide: {width: 8}", "wide: {width: 8}, wider: {width: 16}").replace("1e-2,", "1e-2, 1e-1,")
    more = study_in(tmp_path, text).trials()
    mirror = OptunaMirror(tmp_path / "optuna.log", "tiny", more)
    assert mirror.synchronise(known((plan[0], "complete")), nowhere) is True
    for trial in more:
        mirror.begin(trial)
        mirror.end(trial.name, record_of(trial))
    assert len(reopened(tmp_path).trials) == len(more) + 1


def test_a_trial_of_a_killed_driver_does_not_stay_running(tmp_path: Path, plan: list[Trial]) -> None:
    OptunaMirror(tmp_path / "optuna.log", "tiny", plan).begin(plan[0])
    again = OptunaMirror(tmp_path / "optuna.log", "tiny", plan)
    again.synchronise([], nowhere)
    assert [trial.state for trial in reopened(tmp_path).trials] == [TrialState.FAIL]


def test_a_damaged_journal_is_put_aside_and_said(tmp_path: Path, plan: list[Trial]) -> None:
    mirror = OptunaMirror(tmp_path / "optuna.log", "tiny", plan)
    mirror.begin(plan[0])
    journal = tmp_path / "optuna.log"
    journal.write_bytes(b'{"op_code": 0\n' + journal.read_bytes())
    again = OptunaMirror(journal, "tiny", plan)
    assert len(again.notes) == 1 and "rebuilt from the records" in again.notes[0]
    assert (tmp_path / "optuna.log.bad").exists() and again.synchronise(known((plan[0], "complete")), nowhere) is True


def test_an_rdb_url_is_a_storage_too(tmp_path: Path, plan: list[Trial]) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    mirror = OptunaMirror(tmp_path / "optuna.log", "tiny", plan, url)
    mirror.begin(plan[0])
    mirror.end(plan[0].name, record_of(plan[0]))
    assert mirror.synchronise(known((plan[0], "complete")), nowhere) is False
    assert mirror.synchronise(known((plan[0], "complete"), (plan[1], "complete")), nowhere) is True
    assert len(optuna.load_study(study_name="tiny", storage=url).trials) == 2
    assert not (tmp_path / "optuna.log").exists()


def test_a_lock_left_by_a_killed_process_stops_nobody(tmp_path: Path, plan: list[Trial]) -> None:
    """Optuna's own locks are files: what a SIGKILLed driver left would keep the next one waiting."""
    OptunaMirror(tmp_path / "optuna.log", "tiny", plan)
    (tmp_path / "optuna.log.lock").symlink_to(tmp_path / "optuna.log")
    script = "import sys; from pathlib import Path; from ablate.run.optuna_mirror import _JournalLock; " + (
        "lock = _JournalLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / ".optuna.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    holder.kill()
    holder.communicate()
    with ThreadPoolExecutor() as pool:
        pool.submit(lambda: OptunaMirror(tmp_path / "optuna.log", "tiny", plan).begin(plan[0])).result(timeout=20)
    assert len(reopened(tmp_path).trials) == 1


def test_a_lock_that_is_not_given_back_is_not_waited_for_for_ever(
    tmp_path: Path, plan: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablate.run.optuna_mirror.LOCK_SECONDS", 0.2)
    OptunaMirror(tmp_path / "optuna.log", "tiny", plan)
    with FileLock(tmp_path / ".optuna.lock"), ThreadPoolExecutor() as pool:
        waits = pool.submit(lambda: OptunaMirror(tmp_path / "optuna.log", "tiny", plan).begin(plan[0]))
        with pytest.raises(Timeout):
            waits.result(timeout=20)


def test_a_trial_whose_variant_was_renamed_goes_by_its_name_in_the_plan(tmp_path: Path, plan: list[Trial]) -> None:
    renamed = [replace(trial, variant=trial.variant.upper()) for trial in plan]
    mirror = OptunaMirror(tmp_path / "optuna.log", "tiny", renamed)
    assert mirror.synchronise([(renamed[0], record_of(plan[0]))], nowhere) is True
    assert reopened(tmp_path).trials[0].params["variant"] == "NARROW"


def test_events_of_a_run_become_rows(tmp_path: Path, plan: list[Trial]) -> None:
    mirror = OptunaMirror(tmp_path / "optuna.log", "tiny", plan[:2])
    events: list[Event] = [
        Planned(plan, {}, plan),
        Begun(plan[0]),
        Epoch(plan[0].name, 1, 0.1, 2.0, 2.0, 0.25),
        Ended(plan[0], record_of(plan[0])),
        Begun(plan[1]),
        Dropped(plan[1]),
        Begun(plan[2]),
    ]
    for event in events:
        mirror.on(event)
    assert mirror.close() == []
    rows = reopened(tmp_path).trials
    assert [row.state for row in rows] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL]
    assert rows[0].intermediate_values == {1: 0.25}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_folders_that_share_a_storage_leave_one_another_alone(
    command: Command, database: str, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{command.folder}/shared.db" if database == "sqlite" else request.getfixturevalue("postgresql")
    command.study(STUDY.replace("threads: 1", f"threads: 1, storage: '{url}'"))
    for out, epochs in (("a", 1), ("b", 2)):
        done = command.run("--out", out, "-o", f"train.epochs={epochs}", "--only", "variant=narrow")
        assert done.returncode == 0 and "Optuna" not in done.stdout, done.stdout + done.stderr
    names = optuna.get_all_study_names(url)
    ids = {out: json.loads((command.folder / out / "run.json").read_bytes())["id"] for out in ("a", "b")}
    assert sorted(names) == sorted(f"tiny-{own}" for own in ids.values()) and ids["a"] != ids["b"]
    before = [row.datetime_start for row in optuna.load_study(study_name=f"tiny-{ids['a']}", storage=url).trials]
    # What a run and the dashboard rebuild in one of them is not the other's.
    assert command.run("--out", "b", "-o", "train.epochs=2").returncode == 0
    (command.folder / "artifacts").mkdir()
    bring_up_to_date(Results(command.folder / "b"), command.folder / "artifacts")
    assert json.loads((command.folder / "b" / "run.json").read_bytes())["id"] == ids["b"]
    after = optuna.load_study(study_name=f"tiny-{ids['a']}", storage=url).trials
    assert [row.datetime_start for row in after] == before and len(before) == 2
    assert len(optuna.load_study(study_name=f"tiny-{ids['b']}", storage=url).trials) == 4


def test_a_journal_that_another_process_holds_is_a_note_and_stays(
    tmp_path: Path, plan: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    OptunaMirror(tmp_path / "optuna.log", "tiny", plan).close()
    before = (tmp_path / "optuna.log").read_bytes()
    monkeypatch.setattr("ablate.run.optuna_mirror.LOCK_SECONDS", 0.2)
    with lock(tmp_path / ".optuna.lock") as held:
        assert held
        with pytest.raises(Timeout):
            OptunaMirror(tmp_path / "optuna.log", "tiny", plan)
    assert (tmp_path / "optuna.log").read_bytes() == before and not list(tmp_path.glob("*.bad"))


def test_a_storage_that_fails_is_a_note_and_never_the_end_of_the_run(command: Command) -> None:
    command.study(STUDY.replace("threads: 1", "threads: 1, storage: 'sqlite:////nowhere/at/all.db'"))
    done = command.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the Optuna mirror failed (") == 1 and "Traceback" not in done.stdout + done.stderr
    assert len(command.records()) == 4


def test_a_study_that_is_deleted_from_the_storage_during_the_run_is_a_note(command: Command) -> None:
    command.study(
        STUDY.replace("threads: 1", "threads: 1, storage: 'sqlite:///shared.db'").replace("epochs: 3", "epochs: 40")
    )
    process = command.start()
    url = f"sqlite:///{command.folder}/shared.db"
    limit = time.monotonic() + 60
    while not list(command.results.glob("trials/*/epochs.jsonl")):
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.05)
    (name,) = optuna.get_all_study_names(url)
    optuna.delete_study(study_name=name, storage=url)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "the Optuna mirror failed (" in output and len(command.records()) == 4


def test_a_rebuilt_trial_keeps_its_own_times_and_its_pictures(tmp_path: Path, plan: list[Trial]) -> None:
    folder = tmp_path / "trial"
    folder.mkdir()
    (tmp_path / "artifacts").mkdir()
    (folder / "record.json").write_text("{}")
    (folder / "picture.png").write_bytes(b"picture")
    os.utime(folder / "record.json", (1_700_000_000, 1_700_000_000))
    record = record_of(plan[0]).model_copy(update={"timing": {"wall_s": 90.0}})
    mirror = OptunaMirror(tmp_path / "optuna.log", "tiny", plan)

    def curve_of(_trial: Trial) -> Path:
        return folder / "epochs.jsonl"

    mirror.replay([(plan[0], record)], curve_of, lambda _: [folder / "picture.png"], tmp_path / "artifacts")
    study = reopened(tmp_path)
    (row,) = study.trials
    assert row.datetime_complete is not None and row.datetime_start is not None
    assert row.datetime_complete.timestamp() == 1_700_000_000
    assert (row.datetime_complete - row.datetime_start).total_seconds() == 90
    assert study.metric_names == ["val mIoU"] and row.state == TrialState.COMPLETE
    assert len(list((tmp_path / "artifacts").iterdir())) == 1 and not mirror.lack_pictures()
