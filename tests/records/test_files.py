"""Durable files under kills at every step, locks that die with their holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ablate.analysis.load import read_spec
from ablate.errors import ResultsError
from ablate.records.files import (
    append,
    cut,
    lock,
    make_folder,
    publish_once,
    read_file,
    refuse_links,
    sweep,
    write_atomic,
)
from ablate.records.store import Results, TrialFolder, read_lines, read_record

# Counts the durable steps of a write and kills the process before the n-th of them.
KILLER = """\
import os, sys
from pathlib import Path
import ablate.records.files as files
target, limit, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
count = 0
def guard(original):
    def call(*arguments, **keywords):
        global count
        count += 1
        if count == limit:
            os.kill(os.getpid(), 9)
        return original(*arguments, **keywords)
    return call
for name in ("open", "fsync", "replace", "link", "close"):
    setattr(os, name, guard(getattr(os, name)))
getattr(files, how)(target, b"new" * 1000)
os._exit(0)
"""


@pytest.mark.faults
@pytest.mark.parametrize("how", ["write_atomic", "publish_once"])
@pytest.mark.fault(2, "the old file or the new one, never a part")
def test_a_write_killed_at_any_step_leaves_the_old_file_or_the_new(tmp_path: Path, how: str) -> None:
    outcomes = set()
    for limit in range(1, 12):
        target = tmp_path / f"{how}{limit}" / "record.json"
        target.parent.mkdir()
        if how == "write_atomic":
            target.write_bytes(b"old")
        done = subprocess.run([sys.executable, "-c", KILLER, str(target), str(limit), how], capture_output=True)
        content = target.read_bytes() if target.exists() else b""
        assert content in ({b"old", b"new" * 1000} if how == "write_atomic" else {b"", b"new" * 1000})
        outcomes.add((done.returncode, content[:3]))
        sweep(target.parent)
        assert [path.name for path in target.parent.iterdir()] in ([], ["record.json"])
        if done.returncode == 0:
            break
    # It was killed on both sides of the decisive step, and in the end not at all.
    before = b"old" if how == "write_atomic" else b""
    assert {(-signal.SIGKILL, before), (-signal.SIGKILL, b"new"), (0, b"new")} <= outcomes


def test_what_is_published_stays(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    assert publish_once(path, b"first") is True
    assert publish_once(path, b"second") is False
    assert path.read_bytes() == b"first" and len(list(tmp_path.iterdir())) == 1


def test_a_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(target, b"data")
    assert list(tmp_path.iterdir()) == [target]


def test_a_lock_is_held_by_one_process_and_freed_by_its_death(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    code = (
        "import sys, time; from pathlib import Path; from ablate.records.files import lock\n"
        "with lock(Path(sys.argv[1]), 'holder') as held:\n    print(held, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().strip() == "True"
    with lock(path) as held:
        assert not held
    assert path.read_text() == "holder"
    process.kill()
    process.wait()
    with lock(path, f"pid {os.getpid()}") as held:
        assert held
    assert path.read_text() == f"pid {os.getpid()}"


def test_a_file_is_read_file(tmp_path: Path) -> None:
    for content in (b"", b"x", bytes(range(256)) * 5000):
        (tmp_path / "file").write_bytes(content)
        assert read_file(tmp_path / "file") == content
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path)


@pytest.mark.fault(28, "no write follows one")
def test_no_write_follows_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"mine")
    inside = tmp_path / "results"
    (inside / "trials" / "t").mkdir(parents=True)
    link = inside / "trials" / "t" / "epochs.jsonl"
    link.symlink_to(outside / "precious")
    for write in (
        lambda: write_atomic(link, b"x"),
        lambda: publish_once(link, b"x"),
        lambda: append(link, b"x"),
        lambda: cut(link, 0),
        lambda: lock(link, "x").__enter__(),
        lambda: refuse_links(inside),
    ):
        with pytest.raises(ResultsError, match=r"epochs\.jsonl: a symbolic link, which is never written through"):
            write()
    link.unlink()
    (inside / "tables").symlink_to(outside)
    with pytest.raises(ResultsError, match="tables: a symbolic link"):
        make_folder(inside / "tables")
    with pytest.raises(ResultsError, match="tables: a symbolic link"):
        refuse_links(inside)
    assert (outside / "precious").read_bytes() == b"mine" and link.is_symlink() is False
    # The folder itself may lie elsewhere: that is the user's own choice.
    (inside / "tables").unlink()
    (tmp_path / "elsewhere").symlink_to(inside)
    refuse_links(tmp_path / "elsewhere")
    # W&B has links in a folder of its own, which may be none itself.
    (inside / "wandb").mkdir()
    (inside / "wandb" / "latest-run").symlink_to(outside)
    refuse_links(inside)
    (inside / "wandb" / "latest-run").unlink()
    (inside / "wandb").rmdir()
    (inside / "wandb").symlink_to(outside)
    with pytest.raises(ResultsError, match="wandb: a symbolic link"):
        refuse_links(inside)


@pytest.mark.fault(34, "a pipe is refused, not waited for")
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("record.json", "study.yaml", ".lock"):
        os.mkfifo(tmp_path / name)
    results = Results(tmp_path)
    for read in (lambda: read_file(tmp_path / "record.json"), lambda: read_spec(results.study), results.holder):
        with pytest.raises(ResultsError, match="not a regular file"):
            read()


@pytest.mark.fault(34, "refused by its size, before memory is taken")
def test_a_sparse_file_of_terabytes_is_not_read(tmp_path: Path) -> None:
    for name in ("record.json", "epochs.jsonl", "best.pt", "run.json"):
        os.truncate(os.open(tmp_path / name, os.O_CREAT | os.O_WRONLY), 2**42)
    folder = TrialFolder(tmp_path)
    for read in (
        lambda: read_record(folder.record),
        lambda: read_lines(folder.epochs),
        lambda: folder.digests(("best.pt",)),
        Results(tmp_path).read_run,
        lambda: read_file(folder.best),
    ):
        with pytest.raises(ResultsError, match=r"expected at most [\d,]+ bytes, got 4,398,046,511,104"):
            read()


def test_folders_in_one_another_without_end_are_looked_through(tmp_path: Path) -> None:
    deepest = tmp_path
    for _ in range(1500):
        deepest = Path(f"{deepest}/d")
        deepest.mkdir()
    refuse_links(tmp_path)
    (deepest / "link").symlink_to(tmp_path)
    with pytest.raises(ResultsError, match="link: a symbolic link"):
        refuse_links(tmp_path)
    (deepest / "link").unlink()
    for _ in range(1500):  # pytest's own removal would recurse
        deepest.rmdir()
        deepest = deepest.parent


def test_a_stream_grows_and_is_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "steps.f32"
    cut(path, 0)
    append(path, b"12345678")
    append(path, b"abcd")
    cut(path, 8)
    assert path.read_bytes() == b"12345678"


def test_the_file_of_a_living_writer_is_not_swept(tmp_path: Path) -> None:
    living, own = tmp_path / f".a.{os.getppid()}-0123abcd.part", tmp_path / f".b.{os.getpid()}-0123abcd.part"
    dead, foreign = tmp_path / f".c.{2**22 + 1}-0123abcd.part", tmp_path / ".notes.part"
    for path in (living, own, dead, foreign):
        path.touch()
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([living, foreign])


def test_a_lock_waits_no_longer_than_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with lock(path, "first") as first, lock(path, "second", timeout=0.1) as second:
        assert first and not second
    assert path.read_text() == "first"
