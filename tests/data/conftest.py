"""A cache of its own for every test, and a made-up folder of membrane images like those that users bring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.data.dataset import Dataset, load_dataset
from tests.data.pictures import cells, save


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ABLATE_CACHE", str(folder))
    return folder / "data"


@pytest.fixture
def membrane(tmp_path: Path) -> Path:
    """`image/00.png` to `image/19.png` beside `label/`, grey, 24 x 32."""
    for index in range(20):
        image, mask = cells(index)
        save(tmp_path / "set" / "image" / f"{index:02d}.png", image)
        save(tmp_path / "set" / "label" / f"{index:02d}.png", mask)
    return tmp_path / "set"


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Dataset]:
    """Load the folder `set` with the membrane's settings, changed as the arguments say."""

    def read(**changes: Any) -> Dataset:
        settings: dict[str, Any] = {
            "root": "set",
            "images": "image/*.png",
            "masks": "label/*.png",
            "classes": {"membrane": 0, "cell": 255},
            **changes,
        }
        return load_dataset(
            "folder", {key: value for key, value in settings.items() if value is not None}, base=tmp_path
        )

    return read
