"""Real processes killed, stopped and robbed of their files; the same command then gives the undisturbed records."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ablate.records.files import lock
from tests.run.conftest import STUDY, Command, wait_for

pytestmark = pytest.mark.faults

SLOW = STUDY.replace("epochs: 3", "epochs: 40").replace("workers: 1", "workers: 2")


def workers(folder: Path) -> list[int]:
    """Worker processes of the study in `folder`, by their names."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            named = entry.name.isdigit() and (entry / "comm").read_text().strip() == "ablate-worker"
            if named and str((entry / "cwd").readlink()) == str(folder):
                found.append(int(entry.name))
    return found


def parent(pid: int) -> int:
    """The parent of a process: of a worker, the fork server."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def send(number: signal.Signals, *pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def statuses(command: Command) -> set[str]:
    return {record["status"] for record in command.records().values()}


def training(command: Command) -> bool:
    return any(path.stat().st_size > 200 for path in command.results.glob("trials/*/epochs.jsonl"))


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Command:
    made = Command(tmp_path_factory.mktemp("slow"))
    made.study(SLOW)
    done = made.run()
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.mark.fault(4, "the workers are gone within 5 s; the same command completes the study, equal")
def test_a_killed_driver_takes_its_workers_along_and_the_command_goes_on(command: Command, slow: Command) -> None:
    command.study(SLOW)
    process = command.start()
    wait_for(lambda: training(command))
    assert workers(command.folder)
    process.kill()
    process.wait()
    wait_for(lambda: not workers(command.folder), seconds=5)
    finished = {path: path.stat().st_mtime_ns for path in command.results.glob("trials/*/record.json")}
    done = command.run()
    assert done.returncode == 0, done.stdout
    assert command.records() == slow.records()
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert any("resumed at step" in note for p in command.provenance().values() for note in p["notes"])


@pytest.mark.fault(11, "named with its signal, replaced within the run, records equal")
def test_killed_workers_are_replaced_within_the_run(command: Command, slow: Command) -> None:
    command.study(SLOW.replace("checkpoint_every: 0", "checkpoint_every: 0, attempts: 9"))
    process = command.start()
    for _ in range(2):
        wait_for(lambda: training(command) and bool(workers(command.folder)))
        for pid in workers(command.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "killed (9, SIGKILL)" in output
    assert command.records() == slow.records()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.fault(5, "a checkpoint, exit code 143, no process left; the same command completes the study, equal")
@pytest.mark.fault(6, "once: a checkpoint, exit code 130, no process left; the same command completes the study, equal")
def test_a_stopped_run_ends_cleanly_and_goes_on(
    command: Command, slow: Command, number: signal.Signals, code: int
) -> None:
    command.study(SLOW)
    process = command.start()
    wait_for(lambda: training(command))
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code and "the same command goes on" in output
    wait_for(lambda: not workers(command.folder), seconds=5)
    assert command.run().returncode == 0
    assert command.records() == slow.records()


@pytest.mark.fault(30, "SIGTERM to a worker: its trial goes on from its checkpoint, records equal")
def test_sigterm_to_one_worker_restarts_its_trial(command: Command, slow: Command) -> None:
    command.study(SLOW)
    process = command.start()
    wait_for(lambda: training(command) and bool(workers(command.folder)))
    send(signal.SIGTERM, workers(command.folder)[0])
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "its worker got SIGTERM; it goes on from its checkpoint" in output
    assert command.records() == slow.records()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.fault(
    30,
    "SIGTERM or SIGHUP to all, and a worker killed meanwhile: no failure is left; completed by the same command, equal",
)
def test_workers_that_die_while_stopping_leave_no_failure(
    command: Command, slow: Command, number: signal.Signals, code: int
) -> None:
    command.study(SLOW)
    # A run started under nohup ignores SIGHUP, as it should; this one is started as from a terminal.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        process = command.start()
    finally:
        signal.signal(number, before)
    wait_for(lambda: training(command) and bool(workers(command.folder)))
    there = workers(command.folder)
    send(number, process.pid, *there, parent(there[0]))
    send(signal.SIGKILL, there[0])
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert statuses(command) <= {"complete"}
    wait_for(lambda: not workers(command.folder), seconds=5)
    assert command.run().returncode == 0
    assert command.records() == slow.records()


@pytest.mark.fault(30, "a closed pipe: the run completes, equal")
def test_a_closed_pipe_does_not_end_a_run(command: Command, undisturbed: Command) -> None:
    process = command.start()
    assert process.stdout is not None and process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=240) == 0
    assert command.records() == undisturbed.records()


@pytest.mark.fault(30, "stopped and continued: the run completes, equal")
def test_processes_that_stand_still_for_a_while_go_on(command: Command, slow: Command) -> None:
    command.study(SLOW)
    process = command.start()
    wait_for(lambda: training(command) and bool(workers(command.folder)))
    worker = workers(command.folder)[0]
    for pid in (worker, process.pid, parent(worker)):
        send(signal.SIGSTOP, pid)
        time.sleep(0.3)
        send(signal.SIGCONT, pid)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert command.records() == slow.records()


@pytest.mark.fault(30, "a fork server that stands still: Ctrl-C works")
def test_a_fork_server_that_stands_still_does_not_keep_the_run_from_stopping(command: Command) -> None:
    command.study(SLOW.replace("workers: 2", "workers: 1"))
    process = command.start()
    wait_for(lambda: training(command) and bool(workers(command.folder)))
    worker = workers(command.folder)[0]
    send(signal.SIGSTOP, parent(worker))
    send(signal.SIGKILL, worker)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in output, output
    assert statuses(command) <= {"complete"}


@pytest.mark.fault(4, "a worker that holds the interpreter dies with it, within 5 s")
def test_a_worker_in_a_call_that_holds_the_interpreter_dies_with_its_driver(command: Command) -> None:
    once = command.folder / "once"
    model = f"{{sick: {{name: misbehaving, act: hold, once: {once}}}}}"
    command.study(STUDY.replace("{narrow: {}, wide: {width: 8}}", model).replace("[1e-2, 1e-3]", "[1e-2]"))
    process = command.start()
    wait_for(once.exists)
    assert workers(command.folder)
    process.kill()
    process.wait()
    wait_for(lambda: not workers(command.folder), seconds=5)
    done = command.run()
    assert done.returncode == 0 and statuses(command) == {"complete"}, done.stdout


def test_a_trial_waits_for_a_process_that_still_holds_it(command: Command) -> None:
    assert command.run("--only", "variant=narrow").returncode == 0
    record = next(command.results.glob("trials/*/record.json"))
    record.unlink()
    folder = record.parent
    with lock(folder / ".lock") as held:
        assert held
        process = command.start("--only", "variant=narrow")
        assert process.stdout is not None
        assert any("waits for another process that still runs it" in line for line in process.stdout)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert statuses(command) == {"complete"}


@pytest.mark.fault(6, "while the program is being imported: no traceback")
def test_ctrl_c_while_the_program_is_being_imported_leaves_no_traceback(command: Command) -> None:
    def caught(process: subprocess.Popen[str]) -> bool:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
        return bool(mask & 1 << (signal.SIGINT - 1))

    # Whoever started the tests in the background may have left them a Ctrl-C that is ignored, as their processes would.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for _ in range(5):
        process = command.start()
        for expected in (True, False):  # by Python itself, which begins; then by nobody, while the program is imported
            limit = time.monotonic() + 60
            while caught(process) is not expected and time.monotonic() < limit:
                time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        if process.returncode != 0:
            break
        # This process was not given the processor in time, and the run was over: once more, in a new folder.
        shutil.rmtree(command.results)
    assert process.returncode in (-signal.SIGINT, 130) and output == ""


@pytest.mark.fault(14, "the second is refused, with the pid and host of the first; exit code 2")
def test_a_second_run_in_the_same_folder_is_refused(command: Command) -> None:
    command.study(SLOW)
    process = command.start()
    try:
        wait_for(lambda: training(command))
        process.send_signal(signal.SIGSTOP)  # so that it is still there when the second has begun
        second = command.run()
        assert second.returncode == 2
        assert f"pid {process.pid} on " in second.stderr
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.fault(17, "rebuilt from the records; nothing is run again")
def test_a_lost_or_torn_journal_is_rebuilt_from_the_records(command: Command) -> None:
    assert command.run().returncode == 0
    journal = command.results / "optuna.log"
    whole = journal.read_bytes()
    for damaged in (whole[:-40], b"\0garbage\n" + whole, None):
        if damaged is None:
            journal.unlink()
        else:
            journal.write_bytes(damaged)
        done = command.run()
        assert done.returncode == 0 and "to run" not in done.stdout, done.stdout + done.stderr
        script = (
            "import optuna, sys; optuna.logging.disable_default_handler();"
            "s = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(sys.argv[1]));"
            "print(sorted(t.user_attrs['key'][:8] for t in optuna.load_study(study_name='tiny', storage=s).trials"
            " if t.state.name == 'COMPLETE'))"
        )
        listed = subprocess.run(
            [command.arguments()[0], "-c", script, str(journal)], capture_output=True, text=True, check=True
        )
        assert listed.stdout.strip() == str(sorted(name[-8:] for name in command.records()))


@pytest.mark.fault("R2", "put aside; the trial runs again to the same record")
def test_a_bad_record_is_put_aside_and_its_trial_runs_again(command: Command) -> None:
    assert command.run().returncode == 0
    whole = command.records()
    victim = next(command.results.glob("trials/*/record.json"))
    victim.write_bytes(victim.read_bytes()[:100])
    done = command.run()
    assert done.returncode == 0 and "1 to run" in done.stdout, done.stdout
    assert victim.with_name("record.json.bad").exists()
    assert command.records() == whole


@pytest.mark.fault(13, "refused in one line before any training")
def test_a_read_only_folder_is_refused_before_training(command: Command) -> None:
    target = command.folder / "file"
    target.write_text("in the way")
    done = command.run("--out", str(target / "below"))
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.fault(13, "a read-only mount: refused in one line, exit code 2, nothing changed; status reads it")
def test_a_read_only_mount_is_refused_before_training(small_disk: Path) -> None:
    command = Command(small_disk)
    assert command.run("--only", "variant=narrow").returncode == 0
    before = {path: path.stat().st_mtime_ns for path in command.results.rglob("*")}
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for words in ((), ("--out", "elsewhere")):
        done = command.run(*words)
        assert done.returncode == 2 and done.stdout == "", done.stdout
        (line,) = done.stderr.splitlines()
        assert "cannot be written (Read-only file system)" in line and "--out" in line
    assert {path: path.stat().st_mtime_ns for path in command.results.rglob("*")} == before
    assert command("status", "results/tiny").returncode == 1  # two trials are missing
    assert command("verify", "results/tiny").returncode == 0


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    "environment",
    [
        {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": ""},
        {"HOME": "/proc/nowhere", "ABLATE_CACHE": "/proc/nowhere/cache"},
        {"HOME": "/dev/null"},
    ],
)
@pytest.mark.fault(36, "home and cache missing or not to be written: the engine that was decided, records equal")
def test_a_home_or_cache_that_is_not_there_changes_no_number(
    command: Command, undisturbed: Command, environment: dict[str, str]
) -> None:
    done = command.run(**environment)
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert command.records() == undisturbed.records()
    engines = {p["arithmetic"]["engine"] for p in command.provenance().values()}
    assert engines == {p["arithmetic"]["engine"] for p in undisturbed.provenance().values()} == {"fused"}


def test_what_a_plugin_started_ends_with_its_worker(command: Command) -> None:
    model = "{sick: {name: misbehaving, act: spawn}}"
    command.study(STUDY.replace("{narrow: {}, wide: {width: 8}}", model).replace("[1e-2, 1e-3]", "[1e-2]"))
    done = command.run()
    assert done.returncode == 0, done.stdout
    (started,) = map(int, (command.folder / "child").read_text().split())
    wait_for(lambda: not Path(f"/proc/{started}").exists(), seconds=5)


def test_trials_that_are_not_computed_alike_are_said(command: Command) -> None:
    assert "computed alike" not in command.run("--only", "variant=narrow").stdout
    for path in command.results.glob("trials/*/record.json"):
        path.write_text(path.read_text(encoding="utf-8").replace('"torch": "', '"torch": "0.1.'), encoding="utf-8")
    done = command.run()
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "not all computed alike" in line]
    assert line.startswith("the trials are not all computed alike: PyTorch (0.1.2")
    (line,) = [line for line in command.run().stdout.splitlines() if "not all computed alike" in line]
    assert "precision" not in line


@pytest.mark.parametrize("room", [160, 90, 24])
@pytest.mark.fault(12, "the study pauses with one line; with room again it completes, equal")
def test_a_full_disk_pauses_the_study_with_one_line(small_disk: Path, undisturbed: Command, room: int) -> None:
    command = Command(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * 1024 * (1500 - 12 - room))
    done = command.run()
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "the disk is full (less than 1 MB free); make room there" in said and "Traceback" not in said, said
    assert len(command.records()) < 4
    wait_for(lambda: not workers(small_disk), seconds=5)
    filler.unlink()
    done = command.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert command.records() == undisturbed.records()


@pytest.mark.fault(12, "said once, however many workers meet it")
def test_two_workers_that_meet_a_full_disk_say_it_once(small_disk: Path) -> None:
    command = Command(small_disk)
    command.study(STUDY.replace("workers: 1", "workers: 2").replace("track: {wandb: disabled}\n", ""))
    (small_disk / "filler").write_bytes(b"0" * 1024 * (1500 - 12 - 60))
    done = command.run()
    said = done.stdout + done.stderr
    assert done.returncode == 1
    # W&B's own logs cannot be written, either, and say nothing.
    assert said.replace("W&B: the disk is full", "").count("the disk is full") == 1, said
    assert said.count("W&B: ") <= 1 and "Traceback" not in said, said


def command_plugin() -> str:
    from tests.run.conftest import PLUGIN

    return str(PLUGIN)


@pytest.mark.parametrize("name", ["blanks and 'quotes' and ünï¢ødé-目录", "n" * 150])
@pytest.mark.fault(24, "everything works, records equal")
def test_folders_of_any_name_work(tmp_path: Path, name: str, undisturbed: Command) -> None:
    folder = tmp_path / name
    folder.mkdir()
    command = Command(folder)
    done = command.run("--only", "variant=narrow")
    assert done.returncode == 0, done.stdout + done.stderr
    expected = {key: value for key, value in undisturbed.records().items() if key.startswith("narrow")}
    assert command.records() == expected


@pytest.mark.fault(18, "refused, naming the file; with `--allow-code-change` the records are marked")
def test_changed_plugin_code_is_refused_by_name_and_marked_where_allowed(command: Command) -> None:
    plugin = command.folder / "mine.py"
    plugin.write_text(Path(command_plugin()).read_text(encoding="utf-8"), encoding="utf-8")
    words = ("run", "study.yaml", "--plugin", "mine.py")
    assert command(*words, "--only", "variant=narrow").returncode == 0
    for verb, part in (("run", ("--only", "lr=0.01")), ("retry", ())):
        plugin.write_text(plugin.read_text(encoding="utf-8") + f"\n# before {verb}\n", encoding="utf-8")
        refused = command(verb, *words[1:], *part)
        assert refused.returncode == 2 and "mine.py" in refused.stderr and "--allow-code-change" in refused.stderr
        allowed = command(verb, *words[1:], *part, "--allow-code-change")
        assert allowed.returncode == 0, allowed.stdout + allowed.stderr
    marked = {name.split("-")[0]: "plugin_code_changed" in p for name, p in command.provenance().items()}
    assert marked == {"narrow": False, "wide": True}
