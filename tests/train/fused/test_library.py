"""Compiling and keeping the kernels: once a machine, and a clear word where it cannot be done."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ablate.train.fused import library as module
from ablate.train.fused.library import NoKernels, library


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    library.cache_clear()
    yield tmp_path / "cache"
    library.cache_clear()


def test_they_are_compiled_once_and_kept(kernels: None, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library()
    kept = list((own_cache / "kernels").iterdir())
    assert [path.suffix for path in kept] == [".so"]
    library.cache_clear()
    monkeypatch.setattr(module, "_compile", lambda *_: pytest.fail("compiled again"))
    library()


def test_a_machine_without_a_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(NoKernels, match="no C compiler"):
        library()


def test_what_a_compiler_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho 'no such instruction' >&2\nexit 1\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(NoKernels, match="broken-cc does not compile the kernels: no such instruction"):
        library()
    assert not any((tmp_path / "cache" / "kernels").iterdir())


def test_a_cache_that_cannot_be_written_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(NoKernels, match="cannot be kept or loaded"):
        library()


def test_a_library_that_is_no_library_is_made_again(kernels: None, own_cache: Path) -> None:
    path = own_cache / "kernels" / f"{module._digest(module._compiler())}.so"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"torn")
    library()
    assert path.stat().st_size > 1000
