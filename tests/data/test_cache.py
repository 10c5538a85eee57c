"""The cache of decoded data: built once, checked, rebuilt where damaged, never needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablate.data import cache as store

KEY = "ab" * 32


def filler(calls: list[int], value: int = 7) -> store.Build:
    def build(allocate: store.Allocate) -> dict[str, Any]:
        calls.append(1)
        allocate("train_images", (3, 4, 5, 1))[:] = value
        allocate("train_masks", (3, 4, 5))[:] = 1
        return {"answer": [0.1, 1 / 3]}

    return build


def test_an_entry_is_built_once_and_mapped_afterwards(cache: Path) -> None:
    calls: list[int] = []
    assert store.load(KEY) is None
    for _ in range(2):
        arrays, document = store.fill(KEY, filler(calls))
        assert isinstance(arrays["train_images"], np.memmap) and not arrays["train_images"].flags.writeable
        assert arrays["train_images"].shape == (3, 4, 5, 1) and (arrays["train_images"] == 7).all()
        assert document == {"answer": [0.1, 1 / 3]}
    assert len(calls) == 1
    assert sorted(path.name for path in (cache / KEY).iterdir()) == ["meta.json", "train_images.npy", "train_masks.npy"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "meta", "empty"])
def test_a_damaged_entry_is_rebuilt(cache: Path, damage: str) -> None:
    calls: list[int] = []
    store.fill(KEY, filler(calls))
    path = cache / KEY / ("meta.json" if damage in ("meta", "empty") else "train_images.npy")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(bytes({"flip": data, "truncate": data[:-9], "meta": data[: len(data) // 2]}.get(damage, b"")))
    assert store.load(KEY) is None
    arrays, _ = store.fill(KEY, filler(calls))
    assert len(calls) == 2 and (arrays["train_images"] == 7).all()
    assert [path.name for path in cache.iterdir() if path.name.endswith(".part")] == []


def test_an_error_in_building_leaves_nothing_behind(cache: Path) -> None:
    def build(allocate: store.Allocate) -> dict[str, Any]:
        allocate("train_images", (1, 8, 8, 1))
        raise ValueError("no such label")

    with pytest.raises(ValueError, match="no such label"):
        store.fill(KEY, build)
    assert [path.name for path in cache.iterdir() if not path.name.endswith(".lock")] == []


def test_leftovers_of_a_killed_process_are_swept(cache: Path) -> None:
    torn = [cache / f".{KEY}.part", cache / f".{KEY}.4711-0a1b2c3d.part"]
    for folder in torn:
        folder.mkdir(parents=True)
        (folder / "train_images.npy").write_bytes(b"half")
    store.fill(KEY, filler([]))
    assert not any(folder.exists() for folder in torn) and store.load(KEY) is not None


def test_one_who_builds_at_the_same_time_in_spite_of_the_lock_is_not_written_over(cache: Path) -> None:
    parts: list[str] = []

    def build(allocate: store.Allocate) -> dict[str, Any]:
        parts.extend(path.name for path in cache.glob(f".{KEY}*.part"))
        return filler([])(allocate)

    for _ in range(2):
        store.fill(KEY, build)
        shutil.rmtree(cache / KEY)
    assert len(set(parts)) == 2


def test_where_nothing_can_be_written_the_arrays_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="decoded data is kept in memory"):
        arrays, document = store.fill(KEY, filler([]))
    assert not isinstance(arrays["train_images"], np.memmap) and (arrays["train_images"] == 7).all()
    assert document == {"answer": [0.1, 1 / 3]}
    store.remember("00", {"a": 1})
    assert store.recall("00") is None


@pytest.mark.usefixtures("cache")
def test_a_full_disk_is_an_answer_and_not_a_crash() -> None:
    # RLIMIT_FSIZE stands for the full disk: an allocation beyond it fails as ENOSPC does.
    code = f"""
        import resource, signal, sys, warnings
        import numpy as np
        sys.path.insert(0, {str(Path(store.__file__).parents[2])!r})
        from ablate.data import cache
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        warnings.simplefilter("ignore")
        def build(allocate):
            allocate("train_images", (10, 100, 100, 1))[:] = 3
            return {{}}
        arrays, _ = cache.fill({KEY!r}, build)
        print(type(arrays["train_images"]).__name__, int(arrays["train_images"].sum()))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ndarray", "300000"]
    assert store.load(KEY) is None


@pytest.mark.usefixtures("cache")
def test_processes_that_fill_at_once_share_one_building(tmp_path: Path) -> None:
    code = f"""
        import os, sys, time
        sys.path.insert(0, {str(Path(store.__file__).parents[2])!r})
        from ablate.data import cache
        def build(allocate):
            open(os.path.join({str(tmp_path)!r}, f"built-{{os.getpid()}}"), "w").close()
            array = allocate("train_images", (4, 64, 64, 3))
            time.sleep(0.3)
            array[:] = 5
            return {{}}
        arrays, _ = cache.fill({KEY!r}, build)
        print(int(arrays["train_images"].sum()))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(4)]
    sums = [int(process.communicate()[0]) for process in started]
    assert sums == [5 * 4 * 64 * 64 * 3] * 4
    assert len(list(tmp_path.glob("built-*"))) == 1


def test_a_manifest_is_remembered(cache: Path) -> None:
    assert store.recall("ff") is None
    store.remember("ff", {"entry": KEY, "files": {"ü b.png": "00"}})
    assert store.recall("ff") == {"entry": KEY, "files": {"ü b.png": "00"}}
    (cache / "manifests" / "ff.json").write_text("{")
    assert store.recall("ff") is None
