"""Compiling and keeping the kernels: once a machine, and a clear word where it cannot be done."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ablate.train.engine.fused import library as module
from ablate.train.engine.fused.library import NoKernels, call, library
from tests.conftest import missing


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    library.cache_clear()
    yield tmp_path / "cache"
    library.cache_clear()


@pytest.mark.usefixtures("kernels")
def test_they_are_compiled_once_and_kept(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library()
    kept = list((own_cache / "kernels").iterdir())
    assert [path.suffix for path in kept] == [".so"]
    library.cache_clear()
    monkeypatch.setattr(module, "_compile", lambda *_: pytest.fail("compiled again"))
    library()


@pytest.mark.fault(36, "no compiler: said")
def test_a_machine_without_a_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(module.shutil, "which", lambda _name: None)
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


@pytest.mark.usefixtures("kernels")
@pytest.mark.fault(36, "a cache that is no folder: compiled into a private folder, the same engine")
def test_a_cache_that_cannot_be_used_does_not_switch_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "file"))
    path = Path(library()._name)
    assert path.exists() and path.parent.name.startswith("ablate-kernels-") and not path.parent.stat().st_mode & 0o077


@pytest.mark.usefixtures("kernels")
def test_a_compiler_may_be_named_with_options(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", f"{module._compiler()[0]} -g0")
    library()
    assert len(list((own_cache / "kernels").iterdir())) == 1


def give_away(path: Path) -> None:
    """Make another user the owner of `path`."""
    try:
        os.chown(path, os.getuid() + 4321, -1)
    except PermissionError:
        missing("a file cannot be given to another user here (not root?)")


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("whose", ["another user's", "others may write"])
@pytest.mark.fault(29, "a cache of another user, or that others may write: compiled into a private folder")
def test_a_cache_that_is_not_ours_alone_is_not_used(own_cache: Path, whose: str) -> None:
    folder = own_cache / "kernels"
    folder.mkdir(parents=True)
    (folder / f"{module._digest(module._compiler())}.so").write_bytes(b"planted")
    if whose == "another user's":
        give_away(folder)
    else:
        folder.chmod(0o777)
    path = Path(library()._name)
    assert path.parent.name.startswith("ablate-kernels-") and not path.parent.stat().st_mode & 0o077
    assert next(folder.iterdir()).read_bytes() == b"planted"


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("damage", ["truncated", "writable by others", "of another user"])
@pytest.mark.fault(29, "a library that is torn, of another user, or writable by others: made again")
def test_a_library_that_is_not_whole_or_not_ours_alone_is_made_again(own_cache: Path, damage: str) -> None:
    library()
    (path,) = (own_cache / "kernels").iterdir()
    library.cache_clear()
    # A new file: the old one is loaded, and must not be cut under this process.
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    path.chmod(0o722 if damage == "writable by others" else 0o700)
    if damage == "of another user":
        give_away(path)
    before = path.stat().st_ino
    library()
    assert path.stat().st_ino != before and path.read_bytes() == content and not path.stat().st_mode & 0o077


@pytest.mark.usefixtures("kernels")
@pytest.mark.fault(29, "a file that is no library is made again")
def test_a_library_that_is_no_library_is_made_again(own_cache: Path) -> None:
    path = own_cache / "kernels" / f"{module._digest(module._compiler())}.so"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"torn")
    library()
    assert path.stat().st_size > 1000


@pytest.mark.usefixtures("kernels")
def test_every_processor_gets_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own instructions against those that every processor of its kind has."""

    def computed() -> list[torch.Tensor]:
        library.cache_clear()
        generator = torch.Generator().manual_seed(0)
        x, g = (torch.randn(1000, 20, generator=generator) for _ in range(2))
        # What is not finite, less than normal, halfway between two numbers of bfloat16, negative zero.
        strange = [torch.nan, torch.inf, -torch.inf, 1e-39, -1e-39, 1.00390625, 1.01171875, -0.0, 3e38, 1e-38]
        x[3:13, 2] = torch.tensor(strange)
        found = []
        for dtype in (torch.bfloat16, torch.float32):
            maps, gradient = x.to(dtype), g.to(dtype)
            y, dx, used = torch.empty_like(maps), torch.empty_like(maps), torch.empty(80)
            running = [torch.zeros(20), torch.ones(20)]
            weight, bias = torch.rand(20, generator=torch.Generator().manual_seed(1)), torch.zeros(20)
            d_weight, d_bias = torch.empty(20), torch.empty(20)
            call("norm", dtype, maps, None, y, 1000, 20, weight, bias, *running, 0.1, 1e-5, 1, 1, used)
            call("norm_backward", dtype, gradient, maps, dx, 1000, 20, used, d_weight, d_bias, 1, 1)
            plain = torch.empty_like(maps)
            call("norm", dtype, maps, maps, plain, 1000, 20, torch.ones(20), bias, *running, 0.1, 0.0, 0, 0, used)
            found += [y, dx, plain, *running, d_weight, d_bias]
        return [tensor.view(torch.int16 if tensor.dtype == torch.bfloat16 else torch.int32) for tensor in found]

    own = computed()
    monkeypatch.setattr(module, "TARGETS", (None,))
    portable = computed()
    assert len(list((module.home() / "kernels").iterdir())) == 2
    for mine, other in zip(own, portable, strict=True):
        assert torch.equal(mine, other)
