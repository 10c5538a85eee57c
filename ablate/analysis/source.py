"""What lies behind the frames: the arrays of a trial by its key, read from a results folder when asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ablate.errors import ResultsError
from ablate.records import images as pictures
from ablate.records.files import read_file
from ablate.records.store import Results, TrialFolder

# Predictions are large beside everything else; what draws or scores them does so trial by trial.
_PREDS_KEPT = 4
CURVES = ("train_loss", "val_loss", "val_mean_iou")

Maps = np.ndarray | list[np.ndarray]


class Source(Protocol):
    """The arrays of a study's trials. Every method raises `ResultsError` for what a trial does not have."""

    def counts(self, key: str) -> dict[str, np.ndarray]:
        """ "val" and "test": int64 (N, C, 3) of tp, fp, fn."""

    def image_loss(self, key: str) -> np.ndarray:
        """Test loss of each image: float64 (N,)."""

    def steps(self, key: str) -> np.ndarray:
        """float32 (steps, 2) of training loss and gradient norm."""

    def curves(self, key: str) -> np.ndarray:
        """The number of every epoch and its `CURVES`: float64 (E, 4), NaN where a value is not finite."""

    def layers(self, key: str) -> Mapping[str, Mapping[str, list[float | None]]]:
        """Probes: measure -> layer -> values."""

    def preds(self, key: str) -> Maps:
        """uint8 (N, H, W), or a list of N maps (h, w) where they differ in size."""

    def target(self) -> Maps:
        """As `preds`."""


class Kept(NamedTuple):
    """What has been read of a trial so far; None for what has not."""

    layers: Mapping[str, Mapping[str, list[float | None]]] | None = None
    images: dict[str, np.ndarray] | None = None
    curves: np.ndarray | None = None


_NOTHING = Kept()


class FolderSource:
    """A results folder as a `Source`; `add` makes a trial known."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._folders: dict[str, TrialFolder] = {}
        self._kept: dict[str, Kept] = {}

    def add(self, key: str, folder: TrialFolder) -> None:
        """Make the trial `key` known by its folder."""
        self._folders[key] = folder

    def kept(self, key: str) -> Kept:
        """What has been read of the trial so far."""
        return self._kept.get(key, _NOTHING)

    def keep(self, key: str, kept: Kept) -> None:
        """Keep what was read of the trial elsewhere."""
        self._kept[key] = kept

    def counts(self, key: str) -> dict[str, np.ndarray]:
        """See `Source`."""
        arrays = self._images(key)
        return {"val": arrays["val"], "test": arrays["test"]}

    def image_loss(self, key: str) -> np.ndarray:
        """See `Source`."""
        return self._images(key)["test_loss"]

    def steps(self, key: str) -> np.ndarray:
        """See `Source`; a row that is being written is left out."""
        data = _bytes(self._folders[key].steps)
        return np.frombuffer(data[: len(data) // 8 * 8], dtype="<f4").reshape(-1, 2)

    def curves(self, key: str) -> np.ndarray:
        """See `Source`; a line that is being written is left out."""
        kept = self.kept(key)
        if kept.curves is None:
            rows = [[row.get(name) for name in ("epoch", *CURVES)] for row in _lines(self._folders[key].epochs)]
            kept = kept._replace(curves=np.array(rows, dtype=float).reshape(-1, 1 + len(CURVES)))
            self.keep(key, kept)
        assert kept.curves is not None
        return kept.curves

    def layers(self, key: str) -> Mapping[str, Mapping[str, list[float | None]]]:
        """See `Source`; empty for a trial without a record."""
        return self.kept(key).layers or {}

    def preds(self, key: str) -> Maps:
        """See `Source`."""
        return _unpacked(self._folders[key].predictions)

    def target(self) -> Maps:
        """See `Source`."""
        return pictures.unpack_maps(self._results.test / "targets.zip")

    def _images(self, key: str) -> dict[str, np.ndarray]:
        kept = self.kept(key)
        if kept.images is None:
            kept = kept._replace(images=_read_images(self._folders[key].images))
            self.keep(key, kept)
        assert kept.images is not None
        return kept.images


@lru_cache(maxsize=_PREDS_KEPT)
def _unpacked(path: Path) -> Maps:
    return pictures.unpack_maps(path)


def _read_images(path: Path) -> dict[str, np.ndarray]:
    """Counts and losses of the images of a trial: "val", "test", "test_loss"."""
    arrays = pictures.read_arrays(path, ("val", "test", "test_loss"))
    for split in ("val", "test"):
        if arrays[split].ndim != 3 or arrays[split].shape[2] != 3:
            raise ResultsError(f"counts of shape {arrays[split].shape}, not (N, C, 3)", file=str(path))
    return arrays


def _lines(path: Path) -> list[dict[str, Any]]:
    """The JSON of every line; one at the end that is being written is left out."""
    lines = _bytes(path).splitlines()
    try:
        # One document is read several times quicker than many.
        rows = list(json.loads(b"[%s]" % b",".join(lines)))
        if len(rows) == len(lines):
            return rows
    except ValueError:
        pass
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise ResultsError("not a line of JSON", file=str(path), line=number) from None
    return rows


def _bytes(path: Path) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        raise ResultsError(f"cannot be read ({error.strerror})", file=str(path)) from None
