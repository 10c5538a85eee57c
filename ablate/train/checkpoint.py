"""Checkpoints: two generations, each with its sha256, written beside the training and verified before use."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import threading
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from ablate.errors import ResultsError
from ablate.records.files import MOST_WEIGHTS, durable, read_file, sha256, sync, sync_folder, write_atomic
from ablate.records.images import read_arrays
from ablate.records.store import TrialFolder, quarantine, read_record
from ablate.study.trial import Trial

State = dict[str, Any]
DIGEST_BYTES = 64
# A checkpoint is due after so many times what the last one cost: at most a twentieth of a trial goes into them.
COST_FACTOR = 20


def snapshot(state: Any) -> Any:
    """Copy every tensor in nested dicts and lists to the CPU, so that training may go on while it is written."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, Mapping):
        return {key: snapshot(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [snapshot(value) for value in state]
    return state


def tensor_bytes(state: Any) -> int:
    """Return the bytes of all tensors in nested dicts and lists: the least that a checkpoint of them takes."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    if isinstance(state, Mapping):
        return sum(tensor_bytes(value) for value in state.values())
    return sum(tensor_bytes(value) for value in state) if isinstance(state, (list, tuple)) else 0


def write_state(path: Path, state: State) -> None:
    """Write a checkpoint straight to its file, whole or not at all.

    The sha256 of the payload in hex, a newline, the payload as `torch.save` writes it.
    """
    with durable(path) as handle:
        handle.write(b"0" * DIGEST_BYTES + b"\n")
        digest = save(state, handle)
        handle.seek(0)
        handle.write(digest.encode())


def save(state: Any, handle: IO[bytes]) -> str:
    """Write what `torch.load` reads straight to an open file; return its sha256 in hex. Raises `OSError`."""
    passing = _Hashing(handle)
    torch.save(state, passing)  # type: ignore[arg-type] # all that it uses of a file is `write` and `flush`
    if passing.error is not None:
        raise passing.error
    return passing.digest.hexdigest()


class _Hashing:
    """A file to write to that hashes what passes, and keeps an error: torch would hide a full disk behind its own."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        if self.error is None:
            try:
                self._handle.write(data)
                self._handle.flush()
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        pass


def unpack(data: bytes) -> State:
    """Read the state in `data`; raises `ResultsError` where the digest does not hold or the pickle is not plain data.

    The digest comes first: most single-bit errors load without complaint and with other numbers.
    """
    digest, _, payload = data.partition(b"\n")
    if sha256(payload).encode() != digest:
        raise ResultsError("the checkpoint's sha256 does not match its content")
    state: State = load_plain(payload)
    return state


def load_plain(data: bytes) -> Any:
    """Return what `torch.save` wrote into `data`: tensors and plain values, on the CPU; no code of it is run.

    Raises `ResultsError` for all else, and for an archive that unpacks to more than it is: torch compresses nothing.
    """
    try:
        if zipfile.is_zipfile(io.BytesIO(data)):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if sum(item.file_size for item in archive.infolist()) > len(data):
                    raise ResultsError("refused: it unpacks to more than it is")
        return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except ResultsError:
        raise
    except Exception as error:  # the unpickler refuses in many ways, and says how to run the code all the same
        raise ResultsError(f"refused: not plain tensors as torch.save writes them ({type(error).__name__})") from None


class CheckpointWriter:
    """Writes checkpoints of one trial in a thread of its own, at most one at a time.

    One is due `every` so many seconds, and never before `COST_FACTOR` times what the last one cost; 0: after each step.
    """

    def __init__(self, folder: TrialFolder, every: float = 0.0) -> None:
        self._folder, self._every = folder, every
        self._last, self._cost = time.monotonic(), 0.0
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def due(self) -> bool:
        """Return whether it is time for a checkpoint."""
        wanted = max(self._every, COST_FACTOR * self._cost) if self._every else 0.0
        return time.monotonic() - self._last >= wanted

    def write(self, state: State) -> None:
        """Start writing a copy of `state`; waits for the one before. Raises what that one failed with."""
        self.wait()
        began = time.monotonic()
        state = snapshot(state)
        self._last = time.monotonic()
        self._cost = self._last - began
        self._thread = threading.Thread(target=self._write, args=(state,), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is being written; raises what the writer failed with (such as a full disk)."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Wait for the last write and drop what it failed with: for when the trial has ended anyway."""
        if self._thread is not None:
            self._thread.join()
            self._thread = self._error = None

    def _write(self, state: State) -> None:
        began = time.monotonic()
        try:
            failpoint("save", state["step"])
            # The streams must be on disk as far as this checkpoint counts them.
            for stream in (self._folder.epochs, self._folder.steps):
                sync(stream)
            current = self._folder.path / "checkpoint.pt"
            if current.exists():
                current.replace(self._folder.path / "checkpoint.previous.pt")
                sync_folder(self._folder.path)
            failpoint("between", state["step"])
            write_state(current, state)
            self._cost += time.monotonic() - began
        except BaseException as error:
            self._error = error


def load_newest(folder: TrialFolder, key: str, like: State | None = None) -> tuple[State | None, list[str]]:
    """Load the newest checkpoint of the trial `key` that can be trusted, and say what is wrong with those that cannot.

    What is damaged, malicious, of another trial, or of other tensors than `like` (a state as the trial begins with) is
    quarantined, and the generation before it is used.
    """
    notes: list[str] = []
    for path in folder.checkpoints():
        try:
            state = unpack(read_file(path, MOST_WEIGHTS))
            if state.get("key") != key:
                raise ResultsError("the checkpoint is of another trial")
            if like is not None and not _fits(state, like):
                raise ResultsError("the checkpoint is not that of this network")
            return state, notes
        except ResultsError as error:
            aside = quarantine(path, str(error))
            notes.append(f"{path.name}: {error}; moved to {aside.name}")
    return None, notes


def _fits(state: State, like: State) -> bool:
    """Return whether a state has all that a trial goes on from, its tensors in the shapes of `like`."""
    try:
        best, ours = state["best"], _shapes(like["model"])
        weights = {} if best["weights"] is None else _shapes(best["weights"])
        groups = [len(group["params"]) for group in state["optimizer"]["param_groups"]]
        known = isinstance(state["step"], int) and state["step"] >= 0 and {"initial_val_loss", "layers", "seconds"}
        return (
            bool(known and known <= set(state))
            and _shapes(state["model"]) == ours
            and weights in ({}, ours)
            and groups == [len(group["params"]) for group in like["optimizer"]["param_groups"]]
            and _shapes(state.get("ema", {})) == _shapes(like.get("ema", {}))
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(tensor, "shape", ())) for name, tensor in tensors.items()}


def inherit(trial: Trial, folder: TrialFolder, parent: TrialFolder) -> str:
    """Lay a checkpoint into `folder` from which `trial` goes on after the last epoch of `parent`, a shorter trial.

    Returns a line that says so, or why the trial has to start over: the parent is not complete, or its last state was
    too large to be kept. Only for constant schedules, in which the first epochs of both are the same.
    """
    if folder.checkpoints():
        return ""
    record = read_record(parent.record)
    if record is None or record.status != "complete" or record.key != trial.parent:
        return "started over: there is no complete shorter trial"
    if not parent.last.exists():
        return "started over: the last state of the shorter trial was not kept (run.keep: last keeps it)"
    try:
        last = unpack(read_file(parent.last, MOST_WEIGHTS))
        weights = load_plain(read_file(parent.best, MOST_WEIGHTS))
        counts = read_arrays(parent.images, ("val",))["val"]
    except (ResultsError, OSError) as error:
        return f"started over: {error}"
    folder.make()
    for source, target in ((parent.epochs, folder.epochs), (parent.steps, folder.steps)):
        write_atomic(target, read_file(source))
    best = {
        "epoch": int(record.metrics["best_epoch"] or 0),
        "mean_iou": record.metrics["val_mean_iou"],
        "loss": record.metrics["val_loss"],
        "cross_entropy": record.metrics.get("val_cross_entropy"),
        "counts": torch.from_numpy(counts),
        "weights": weights,
    }
    spent = {name: record.timing.get(f"{name}_s", 0.0) for name in ("train", "validation")}
    rates = {name: record.timing.get(f"shared_{name}_images_per_s", 0.0) for name in spent}
    state = {
        **last,
        "key": trial.key,
        "best": best,
        "initial_val_loss": record.metrics["initial_val_loss"],
        "layers": record.layers,
        "seconds": record.timing["wall_s"],
        "spent": spent,
        "images": {name: round(seconds * rates[name]) for name, seconds in spent.items()},
    }
    write_state(folder.path / "checkpoint.pt", state)
    return f"goes on after epoch {record.metrics['epochs_run']:.0f} of {parent.name}"


_ARMED = os.environ.get("ABLATE_FAILPOINT", "")
_ONCE = os.environ.get("ABLATE_FAILPOINT_ONCE", "")


def failpoint(place: str, number: int) -> None:
    """Kill this process by SIGKILL where the environment says so: for tests, which name a place by ABLATE_FAILPOINT.

    `step:17` is before step 17, `epoch:2` after epoch 2. With `ABLATE_FAILPOINT_ONCE=/path` once: the file is created
    first, and nothing happens where it exists.
    """
    if not _ARMED or f"{place}:{number}" != _ARMED:
        return
    if _ONCE:
        try:
            Path(_ONCE).touch(exist_ok=False)
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)
