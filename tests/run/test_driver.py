"""The whole run by its command: completeness, repetition, selection, failures, edits, reuse."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from ablate.analysis.analyse import analyse
from ablate.analysis.frames import load_results
from ablate.analysis.looks import confirm_looks
from ablate.plugins import Plugins
from ablate.records.store import PACKED, Results, publish_record
from ablate.run.display import Display
from ablate.run.driver import Driver
from ablate.run.events import Begun, Ended, Event, Failed, Finished, Stopped, WorkerEvent
from ablate.run.executor import worker_environment
from ablate.run.setup import prepare, writable
from ablate.study.trial import Trial, level_text
from ablate.train.predictor import read_card
from benchmarks.publish import pack
from tests.run.conftest import PLUGIN, STUDY, Command
from tests.run.test_optuna_mirror import record_of, study_in

ONE = STUDY.replace("{narrow: {}, wide: {width: 8}}", "{only: {}}").replace("[1e-2, 1e-3]", "[1e-2]")


def misbehaving(act: str, **settings: object) -> str:
    more = "".join(f", {name}: {value}" for name, value in settings.items())
    model = f"{{sick: {{name: misbehaving, act: {act}{more}}}, healthy: {{}}}}"
    return STUDY.replace("{narrow: {}, wide: {width: 8}}", model).replace("[1e-2, 1e-3]", "[1e-2]")


def test_a_run_is_complete_and_a_second_one_does_nothing(undisturbed: Command) -> None:
    records = undisturbed.records()
    assert len(records) == 4 and {record["status"] for record in records.values()} == {"complete"}
    before = {path: path.stat().st_mtime_ns for path in undisturbed.results.glob("trials/*/*")}
    ends = sorted(records, key=lambda name: (undisturbed.results / "trials" / name / "record.json").stat().st_mtime_ns)
    # The longest first, so that no worker is left with one at the end.
    assert [name.split("-")[0] for name in ends] == ["wide", "wide", "narrow", "narrow"]
    again = undisturbed.run()
    assert again.returncode == 0 and "to run" not in again.stdout
    assert "nothing was left to do: 4 of 4 trials are finished" in again.stdout.splitlines()
    assert {path: path.stat().st_mtime_ns for path in undisturbed.results.glob("trials/*/*")} == before


@pytest.mark.fault(4, "killed between the record and the last of its checkpoints: nothing is left beside the record")
def test_no_checkpoint_is_left_beside_a_record_whose_worker_was_killed(command: Command) -> None:
    command.study(ONE)
    once = command.folder / "once"
    done = command.run(ABLATE_FAILPOINT="published:1", ABLATE_FAILPOINT_ONCE=str(once))
    assert done.returncode == 0, done.stdout
    assert once.exists() and [record["status"] for record in command.records().values()] == ["complete"]
    assert not list(command.results.glob("trials/*/checkpoint*"))
    # The same where the whole run was killed there, so that the next one finds the record.
    left = next(command.results.glob("trials/*")) / "checkpoint.previous.pt"
    left.write_bytes(b"spent")
    assert command.run().returncode == 0
    assert not left.exists()


@pytest.mark.fault(
    14, "both started in a folder that is not there yet: one goes on, the refused one takes nothing away"
)
def test_two_runs_of_a_new_folder_leave_it_to_one_of_them(command: Command) -> None:
    command.study(ONE)
    both = [command.start() for _ in range(2)]
    said = [process.communicate(timeout=240)[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], said
    assert [record["status"] for record in command.records().values()] == ["complete"]


def test_plain_lines_where_there_is_no_terminal(command: Command) -> None:
    command.study(ONE)
    done = command.run()
    lines = done.stdout.splitlines()
    assert "1 trial: 0 finished, 1 to run" in lines
    assert any(line.startswith("[1/1]  only-lr0.01-seed0-") and "test mIoU" in line for line in lines)
    assert "\x1b" not in done.stdout and "━" not in done.stdout


def test_only_picks_trials(command: Command) -> None:
    done = command.run("--only", "variant=wide", "--only", "lr=0.001")
    assert done.returncode == 0, done.stderr
    assert [name.split("-seed")[0] for name in command.records()] == ["wide-lr1e-3"]
    assert "4 trials: 0 finished, 1 to run" in done.stdout and "[1/1]  wide-lr1e-3-seed0" in done.stdout
    wrong = command.run("--only", "variant=wid")
    assert wrong.returncode == 2 and "did you mean 'wide'?" in wrong.stderr


@pytest.mark.fault(19, "new trials run, finished ones stay, those no longer in the study are listed")
def test_an_edited_study_runs_what_is_new_and_lists_what_is_left_over(command: Command) -> None:
    assert command.run().returncode == 0
    first = command.records()
    command.study(STUDY.replace("[1e-2, 1e-3]", "[1e-2, 3e-3]"))
    done = command.run()
    assert done.returncode == 0, done.stdout
    assert "4 trials: 2 finished, 2 to run" in done.stdout
    assert "2 trials here are no longer in the study" in done.stdout
    both = command.records()
    assert len(both) == 6 and all(both[name] == record for name, record in first.items())


@pytest.mark.fault(8, "`failed` after its attempts, with the reason; the other trials go on; exit code 1")
def test_a_crash_loop_fails_after_its_attempts_and_the_others_go_on(command: Command) -> None:
    command.study(misbehaving("raise"))
    done = command.run()
    assert done.returncode == 1
    assert "attempt 2 of 2 follows" in done.stdout
    records = {name.split("-")[0]: record for name, record in command.records().items()}
    assert records["healthy"]["status"] == "complete"
    assert records["sick"]["status"] == "failed"
    assert records["sick"]["reason"] == "RuntimeError: this model always raises"
    assert "Traceback" not in done.stdout + done.stderr
    assert "this model always raises" in next(command.results.glob("trials/sick*/error.txt")).read_text()
    # A failed trial is not run again on its own, only by `retry`.
    assert "to run" not in command.run().stdout
    plugin = Path(__file__).resolve().parents[1] / "tiny_plugin.py"
    again = command("retry", "study.yaml", "--plugin", str(plugin))
    assert again.returncode == 1 and "1 to run" in again.stdout


@pytest.mark.fault(10, "said, and tried once more in a fresh process, with the same batch size")
def test_out_of_memory_is_a_reason_and_the_next_attempt_has_a_fresh_process(command: Command) -> None:
    once = command.folder / "once"
    command.study(misbehaving("memory", once=once))
    done = command.run()
    assert done.returncode == 0, done.stdout
    assert "out of memory" in done.stdout
    assert {record["status"] for record in command.records().values()} == {"complete"}


@pytest.mark.fault(11, "tried again from its checkpoint; the trial completes")
def test_a_killed_worker_is_replaced_and_its_trial_completed(command: Command) -> None:
    once = command.folder / "once"
    command.study(misbehaving("kill", once=once, at=8))
    done = command.run()
    assert done.returncode == 0, done.stdout
    assert "killed (9, SIGKILL)" in done.stdout
    sick, notes = next((name, [p["notes"]]) for name, p in command.provenance().items() if name.startswith("sick"))
    assert any("resumed at step" in note for note in notes[0])
    assert f"{sick}: resumed at step " in done.stdout


@pytest.mark.fault(7, "killed after `run.trial_timeout`: `failed`, and the others go on")
def test_a_hung_worker_is_killed_after_its_time(command: Command) -> None:
    text = misbehaving("sleep").replace("checkpoint_every: 0", "trial_timeout: 15, attempts: 1")
    command.study(text)
    done = command.run()
    assert done.returncode == 1
    records = {name.split("-")[0]: record for name, record in command.records().items()}
    assert records["sick"]["reason"].startswith("timeout") and records["healthy"]["status"] == "complete"


@pytest.mark.fault(9, "a result of its own kind, not tried again; the study completes with exit code 0")
def test_a_diverged_trial_is_a_result(command: Command) -> None:
    command.study(misbehaving("explode", at=4))
    done = command.run()
    assert done.returncode == 0, done.stdout
    sick = next(record for name, record in command.records().items() if name.startswith("sick"))
    assert sick["status"] == "diverged" and sick["metrics"]["diverged_step"] == 4
    (name,) = (name for name, record in command.records().items() if record["status"] == "diverged")
    assert any(line.startswith(f"{name}: diverged: ") for line in command("status", "tiny").stdout.splitlines())


def test_finished_trials_of_another_study_are_taken_over_where_allowed(undisturbed: Command, command: Command) -> None:
    text = STUDY.replace("study: tiny", "study: other")
    published = command.folder / "published"
    shutil.copytree(undisturbed.results, published, ignore=shutil.ignore_patterns("trials"))
    pack(Results(undisturbed.results), published / PACKED)
    text = text.replace("threads: 1", f"threads: 1, reuse: ['{published}']")
    command.study(text)
    done = command.run()
    assert done.returncode == 0 and "to run" not in done.stdout, done.stdout
    said = "4 trials taken over from other folders (run.reuse); 4 of them without predictions"
    assert said in done.stdout.splitlines()
    command.results = command.folder / "results" / "other"
    assert command.records() == undisturbed.records()


def test_a_folder_to_reuse_that_is_not_there_is_an_error(command: Command) -> None:
    command.study(STUDY.replace("threads: 1", "threads: 1, reuse: [nowhere]"))
    done = command.run()
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert re.search(r"^ablate: study\.yaml:\d+: run\.reuse: there are no results to reuse in ", done.stderr)


def test_trials_are_found_by_their_keys_whatever_their_folders_are_called(command: Command) -> None:
    assert command.run().returncode == 0
    records = command.records()
    # A variant renamed, and the axes in another order with one added whose level is the default.
    command.study(STUDY.replace("narrow:", "slim:").replace("{lr:", "{optimizer: [adam], lr:"))
    done = command.run()
    assert done.returncode == 0 and "to run" not in done.stdout, done.stdout
    assert "no longer in the study" not in done.stdout and command.records() == records
    frames = load_results(command.results)
    assert sorted(set(frames.trials["variant"])) == ["slim", "wide"]
    assert set(frames.trials["status"]) == {"complete"} and len(frames.trials) == 4
    assert command("status").returncode == 0


class Scripted:
    """An executor that answers each trial with the events of a script."""

    def __init__(self, *answers: Callable[[Trial], WorkerEvent]) -> None:
        self.answers, self.waiting = list(answers), list[WorkerEvent]()

    def free(self) -> int:
        return 1

    def start(self, pending: list[Trial]) -> Trial:
        self.waiting.append(self.answers.pop(0)(pending[0]))
        return pending[0]

    def events(self, timeout: float) -> list[WorkerEvent]:  # noqa: ARG002 (the executor's signature)
        found, self.waiting = self.waiting, []
        return found

    def stop(self, reason: str) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing is left."""


def scripted(folder: Path, *answers: Callable[[Trial], WorkerEvent]) -> tuple[Driver, Scripted, io.StringIO]:
    """A driver of a study of one trial and what it prints."""
    study = study_in(folder, ONE)
    printed = io.StringIO()
    prepared = prepare(study, writable(folder / "out"), plugins=Plugins(), allow_code_change=False)
    driver = Driver(prepared, Display(Console(file=printed, width=200)), plugins=Plugins(), profile=False)
    executor = Scripted(*answers)
    driver.executor = lambda: executor  # type: ignore[assignment, return-value, method-assign]
    return driver, executor, printed


def test_a_trial_that_has_no_record_at_the_end_is_no_success(tmp_path: Path) -> None:
    driver, _, _ = scripted(tmp_path, lambda trial: Stopped(trial.name, "another process runs this trial"))
    outcome = driver.run()
    assert outcome.exit_code == 1
    assert any(note.startswith("without a record: only-lr0.01-seed0-") for note in outcome.notes)


@pytest.mark.parametrize(("width", "wide"), [(60, False), (120, True)])
def test_a_narrow_terminal_leaves_out_columns_and_cuts_no_name(tmp_path: Path, width: int, wide: bool) -> None:
    trial = study_in(tmp_path, ONE).trials()[0]
    display = Display(Console(file=io.StringIO(), width=width, force_terminal=True, no_color=True))
    with display.live():
        display.on(Begun(trial))
        display.on(Ended(trial, record_of(trial)))
    shown = display.console.file.getvalue()  # type: ignore[attr-defined]
    last = shown[shown.rindex("finished") :]
    assert trial.name in last and "50.00 %" in last
    assert ("val mIoU" in last) == wide


def test_a_worker_that_dies_after_its_record_stands_has_not_failed(tmp_path: Path) -> None:
    def publishes(trial: Trial) -> WorkerEvent:
        folder = Results(tmp_path / "out").trial(trial.name)
        folder.path.mkdir()
        publish_record(folder, record_of(trial))
        return Failed(trial.name, "killed (9, SIGKILL)")

    driver, _, printed = scripted(tmp_path, publishes)
    assert driver.run().exit_code == 0
    assert "complete" in printed.getvalue() and "killed" not in printed.getvalue()


def test_the_record_of_another_trial_is_put_aside(tmp_path: Path) -> None:
    driver, _, printed = scripted(tmp_path, lambda trial: Finished(trial.name, record_of(trial)))
    (trial,) = driver.plan
    folder = Results(tmp_path / "out").trial(trial.name)
    folder.path.mkdir()
    publish_record(folder, record_of(trial).model_copy(update={"key": "0" * 64}))
    assert driver.run().exit_code == 0
    assert "is another trial's; moved to record.json.bad" in printed.getvalue()


def test_a_listener_that_fails_is_a_note_and_the_others_go_on(tmp_path: Path) -> None:
    class Broken:
        title = "the broken one"

        def on(self, event: Event) -> None:
            raise ValueError(type(event).__name__)

        def close(self) -> list[str]:
            return []

    driver, _, _ = scripted(tmp_path, lambda trial: Finished(trial.name, record_of(trial)))
    driver.listeners.insert(0, Broken())
    outcome = driver.run()
    note = "the broken one failed (ValueError: Planned); the records are complete without it"
    assert outcome.exit_code == 0 and outcome.notes == [note]


def test_the_run_file_says_what_a_reader_has_to_know(undisturbed: Command) -> None:
    run = json.loads((undisturbed.results / "run.json").read_bytes())
    assert {"torch", "optuna", "python"} <= set(run["versions"])
    assert [entry["variant"] for entry in run["plan"]] == ["narrow", "narrow", "wide", "wide"]
    assert run["variants"]["wide"]["differs"] == {"width": [4, 8]}
    assert run["decisions"]["threads"]["value"] == 1 and run["decisions"]["threads"]["why"]
    assert run["data"]["splits"] == {"train": 12, "val": 5, "test": 5}
    text = (undisturbed.results / "run.json").read_text() + (undisturbed.results / "study.resolved.yaml").read_text()
    assert str(undisturbed.folder) not in text


def test_extended_trials_go_on_to_what_a_longer_study_gives(undisturbed: Command, command: Command) -> None:
    done = undisturbed.run("--extend", "2", "--only", "variant=narrow")
    assert done.returncode == 0, done.stdout + done.stderr
    longer = Command.__new__(Command)
    longer.folder, longer.results = undisturbed.folder, undisturbed.folder / "results" / "tiny-x2"
    assert all("goes on after epoch 3" in p["extended"] for p in longer.provenance().values())
    assert json.loads((longer.results / "run.json").read_bytes())["extended_from"] == {"narrow": 3, "wide": 3}
    assert command.run("-o", "train.epochs=6", "-o", "run.keep=best", "--only", "variant=narrow").returncode == 0
    assert longer.records() == command.records() and len(command.records()) == 2
    for folder in Results(command.results).folders():
        assert not folder.last.exists() and folder.best.exists() and read_card(folder).classes


def test_nothing_is_extended_before_it_has_run(command: Command) -> None:
    done = command.run("--extend", "2")
    assert done.returncode == 2 and not (command.folder / "results" / "tiny-x2").exists()
    expected = "tiny: there are no shorter trials to go on from; run the study without --extend first"
    assert done.stderr.strip().endswith(expected), done.stderr


def test_an_edge_is_extended_for_all_variants_and_the_chosen_settings_are_confirmed(command: Command) -> None:
    command.study(STUDY + "on_edge: extend\nconfirm: {seeds: 2}\n")
    done = command.run()
    assert done.returncode == 0, done.stdout + done.stderr
    records = list(command.records().values())
    main = {(r["variant"], r["settings"]["lr"]) for r in records if r["role"] == "main"}
    rates = {rate for _, rate in main}
    # 1e-2 is the best of the two for these networks: the next rate beyond it is 1e-2²/1e-3.
    assert 0.1 in rates and len(rates) in (3, 4, 5, 6)
    assert main == {(variant, rate) for variant in ("narrow", "wide") for rate in rates}
    confirmed = [r for r in records if r["role"] == "confirm"]
    assert len(confirmed) == 4 and {r["seed"] for r in confirmed}.isdisjoint({0})
    assert "to run" not in command.run().stdout


OTHER_EACH_TIME = """
import os
import ablate
from ablate.data.dataset import Dataset
from tests.tiny_plugin import tiny

@ablate.register_dataset("drifting")
def drifting() -> Dataset:
    return tiny(seed=os.getpid())
"""


@pytest.mark.fault(32, "the worker refuses, the run ends with the cure and exit code 2; nothing counts as failed")
def test_data_that_are_others_in_a_worker_end_the_run(command: Command) -> None:
    (command.folder / "drifting.py").write_text(OTHER_EACH_TIME)
    command.study(STUDY.replace("{name: tiny}", "{name: drifting}").replace("workers: 1", "workers: 2"))
    done = command.run("--plugin", "drifting.py")
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert "study.yaml:2: data.name: the data set 'drifting' is another each time it is made" in line
    assert "attempt" not in done.stdout and not command.records()


def test_what_would_fail_in_a_trial_is_said_before_one_begins(command: Command) -> None:
    (command.folder / "loss.py").write_text(
        "import ablate\n\n@ablate.register_loss('mine')\ndef mine(logits, target):\n    return logits.mean()\n"
    )
    for words in (("run",), ("plan",), ("check",)):
        arguments = (*words, "study.yaml", "--plugin", str(PLUGIN), "--plugin", "loss.py", "-o", "train.loss=mine")
        done = command(*arguments)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert "loss.py:3: the loss 'mine': TypeError" in line and "it is called with (logits, target, *," in line
    assert not list(command.results.glob("trials/*"))
    sound = command("check", "study.yaml", "--plugin", str(PLUGIN))
    assert sound.returncode == 0, sound.stderr
    said = "tiny: nothing wrong was found\n  study: 2 variants, 4 trials in all\n  data: 12 / 5 / 5"
    assert sound.stdout.startswith(said)


def by_phase(command: Command) -> dict[str, dict[tuple[str, float], int]]:
    """How many finished seeds every cell has, by role."""
    count: dict[str, dict[tuple[str, float], int]] = {"main": {}, "confirm": {}}
    for record in command.records().values():
        cell = record["variant"], record["settings"]["lr"]
        count[record["role"]][cell] = count[record["role"]].get(cell, 0) + 1
    return count


def test_two_phases_screen_the_best_again_and_confirm_what_was_chosen(command: Command) -> None:
    text = STUDY.replace("[1e-2, 1e-3]", "[1e-2, 1e-3, 1e-4]").replace("seeds: 1", "screen: {}\nconfirm: {seeds: 3}")
    command.study(text)
    done = command.run()
    assert done.returncode == 0, done.stdout + done.stderr
    count = by_phase(command)
    assert sorted(count["main"].values()) == [1, 1, 2, 2, 2, 2]
    assert list(count["confirm"].values()) == [3, 3] and {name for name, _ in count["confirm"]} == {"narrow", "wide"}
    assert all(count["main"][cell] == 2 for cell in count["confirm"]), "chosen among the settings of two seeds"
    analysis = analyse(load_results(command.results))
    assert {row["variant"]: row["setting"] for _, row in analysis.variants.iterrows()} == {
        variant: f"lr={level_text(lr)}" for variant, lr in count["confirm"]
    }
    primary = analysis.contrasts[analysis.contrasts["primary"]]
    assert primary["kind"].tolist() == ["confirmed"] and primary["n"].tolist() == [3]
    assert "to run" not in command.run().stdout
    # Another folder takes the trials of every phase over.
    command.study(
        text.replace("threads: 1", f"threads: 1, reuse: ['{command.results}']").replace("tiny\n", "other\n", 1)
    )
    other = command.run()
    assert other.returncode == 0 and "to run" not in other.stdout, other.stdout
    assert [line for line in other.stdout.splitlines() if "(run.reuse)" in line] == [
        "16 trials taken over from other folders (run.reuse)"
    ]
    assert len(list((command.folder / "results" / "other").glob("trials/*/record.json"))) == 16


def test_a_run_until_decided_that_is_killed_goes_on_to_the_same_looks(command: Command, tmp_path: Path) -> None:
    text = STUDY.replace("seeds: 1", "screen: {}\nconfirm: {until: decided, looks: [2, 3, 4], futility: 0.0}")
    command.study(text)
    process = command.start()
    deadline = time.monotonic() + 120
    # Four at the two rates, four screened again, and two of the first look.
    while len(list(command.results.glob("trials/*/record.json"))) < 10 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert command.run().returncode == 0
    (tmp_path / "whole").mkdir()
    whole = Command(tmp_path / "whole")
    whole.study(text)
    assert whole.run().returncode == 0
    assert command.records() == whole.records()
    assert Results(command.results).read_run()["plan"] == Results(whole.results).read_run()["plan"]
    looks = confirm_looks(load_results(command.results)).frame
    assert looks["n"].tolist() == [2, 3, 4][: len(looks)]
    fresh = sum(by_phase(command)["confirm"].values())
    assert fresh == 2 * looks["n"].max(), "no seed after the look that decided"


@pytest.mark.fault("R1", "named with its line in the study file; exit code 2")
def test_a_device_that_is_not_there_is_named_with_its_place(command: Command) -> None:
    command.study(STUDY.replace("workers: 1", "devices: [cuda:7], workers: 1"))
    done = command.run()
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(lines) == 1
    assert lines[0].startswith("ablate: study.yaml:9: run.devices: device 'cuda:7' is not there; this machine has ")


def test_a_profile_that_is_added_keeps_the_command_and_the_phases_of_the_run(command: Command) -> None:
    command.study(STUDY + "confirm: {seeds: 1}\n")
    part = command.run("--only", "variant=narrow")
    assert part.returncode == 0, part.stderr
    assert "confirming waits for the trials that --only left out: run the study without it" in part.stdout
    assert "confirming waits" not in command.run().stdout
    plan = json.loads((command.results / "run.json").read_text())["plan"]
    assert "confirm" in {entry["role"] for entry in plan}
    done = command("profile", "study.yaml", "--plugin", str(PLUGIN), "--seconds", "1")
    assert done.returncode == 0, done.stderr
    assert set(json.loads((command.results / "profile.json").read_text())["variants"]) == {"narrow", "wide"}
    after = json.loads((command.results / "run.json").read_text())
    assert after["command"].startswith("ablate run study.yaml") and after["plan"] == plan


@pytest.mark.usefixtures("kernels")
@pytest.mark.fault(36, "the compiler is gone since the study was begun: refused with the cure")
def test_a_study_begun_with_fused_kernels_is_not_gone_on_with_without_them(command: Command) -> None:
    assert command.run("--only", "variant=narrow").returncode == 0
    begun = (command.results / "run.json").read_bytes()
    done = command.run(CC="no-such-compiler", ABLATE_CACHE=str(command.folder / "other"))
    assert done.returncode == 2, done.stderr
    assert "run.engine: no fused kernels: no C compiler on this machine by the name no-such-compiler" in done.stderr
    assert "run into another folder with --out" in done.stderr
    assert (command.results / "run.json").read_bytes() == begun and len(command.records()) == 2


@pytest.mark.fault("R6", "workers do not get it")
def test_a_worker_sees_its_threads_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")
    environment = worker_environment("cpu", 3)
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "3"
    assert "WANDB_API_KEY" not in environment and environment["GLIBC_TUNABLES"] == "glibc.malloc.check=0"
    monkeypatch.delenv("GLIBC_TUNABLES")
    settings = dict(item.split("=") for item in worker_environment("cpu", 1)["GLIBC_TUNABLES"].split(":"))
    assert settings["glibc.malloc.hugetlb"] == "1"
