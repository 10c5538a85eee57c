"""What all tests share: where real data lies, and what a missing component means."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ablate.registry import AUGMENTATIONS, DATASETS, FIGURES, LOSSES, MEASURES, MODELS, OPTIMIZERS, TABLES, Displays
from ablate.train.engine.fused.library import NoKernels, library

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = f"{ROOT / 'ablate'}{os.sep}"
# Tests that start and kill processes, by the clock: one after another, whatever else runs beside them.
BY_THE_CLOCK = tuple(str(ROOT / "tests" / name) for name in ("run", "soak", "benchmarks", "test_cli.py"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep those tests in one process where pytest runs in several (`-n 2 --dist loadgroup`)."""
    for item in items:
        if str(item.path).startswith(BY_THE_CLOCK):
            item.add_marker(pytest.mark.xdist_group("processes"))


def missing(reason: str, *, allow_module_level: bool = False) -> NoReturn:
    """Skip with a visible reason; fail where everything is said to be installed (ABLATE_TEST_ALL=1)."""
    if os.environ.get("ABLATE_TEST_ALL") == "1":
        pytest.fail(f"ABLATE_TEST_ALL=1, but {reason}")
    pytest.skip(reason, allow_module_level=allow_module_level)


@pytest.fixture
def registered() -> Iterator[None]:
    """Forget what a test registers: another plugin may give its components the same names."""
    kinds: tuple[Any, ...] = (MODELS, DATASETS, LOSSES, OPTIMIZERS, AUGMENTATIONS, FIGURES, TABLES, MEASURES)
    before: list[dict[str, Any]] = [dict(kind._entries) for kind in kinds]
    yield
    for kind, known in zip(kinds, before, strict=True):
        # What modules of the package registered when they were first imported, meanwhile, stays.
        own = {name: entry for name, entry in kind._entries.items() if entry.source.startswith(("ablate", PACKAGE))}
        kind._entries = own | known
        if isinstance(kind, Displays):
            kind._places = {name: place for name, place in kind._places.items() if name in kind._entries}


@pytest.fixture(scope="session")
def kernels() -> None:
    """The fused kernels, compiled for this machine."""
    try:
        library()
    except NoKernels as error:
        missing(f"there are no fused kernels: {error}")


@pytest.fixture(scope="session")
def camvid_root() -> Path:
    """The CamVid images in the SegNet layout, where this machine has them."""
    named = os.environ.get("ABLATE_CAMVID")
    beside = sorted(ROOT.parent.glob("*/data/camvid"))  # data kept beside the checkout, for several of them
    for root in ([Path(named)] if named else []) + [ROOT / "data" / "camvid", *beside]:
        if (root / "testannot").is_dir():
            return root
    # Nobody can install these by a package manager, so their absence is never a failure.
    pytest.skip("the CamVid images are not here; set ABLATE_CAMVID to a folder in the SegNet layout")
