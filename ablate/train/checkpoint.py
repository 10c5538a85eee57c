"""Checkpoints: two generations, each with its sha256, written beside the training and verified before use."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ablate.errors import ResultsError
from ablate.records.files import sha256, sync, sync_folder, write_atomic
from ablate.records.store import TrialFolder, quarantine
from ablate.train.failpoints import failpoint

State = dict[str, Any]


def snapshot(state: Any) -> Any:
    """A copy of every tensor in nested dicts and lists, on the CPU, so that training may go on while it is written."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, Mapping):
        return {key: snapshot(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [snapshot(value) for value in state]
    return state


def tensor_bytes(state: Any) -> int:
    """Bytes of all tensors in nested dicts and lists: the least that a checkpoint of them takes."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    if isinstance(state, Mapping):
        return sum(tensor_bytes(value) for value in state.values())
    return sum(tensor_bytes(value) for value in state) if isinstance(state, (list, tuple)) else 0


def pack(state: State) -> bytes:
    """Bytes of a checkpoint: the sha256 of the payload in hex, a newline, the payload."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    return sha256(payload).encode() + b"\n" + payload


def unpack(data: bytes) -> State:
    """The state in `data`; raises `ResultsError` where the digest does not hold or the pickle is not plain data.

    The digest comes first: most single-bit errors load without complaint and with other numbers.
    """
    digest, _, payload = data.partition(b"\n")
    if sha256(payload).encode() != digest:
        raise ResultsError("the checkpoint's sha256 does not match its content")
    try:
        state: State = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    except Exception as error:  # the unpickler refuses in many ways; none of them may fall back to a full load
        raise ResultsError(f"the checkpoint is refused ({str(error).splitlines()[0]})") from None
    return state


class CheckpointWriter:
    """Writes checkpoints of one trial in a thread of its own, at most one at a time."""

    def __init__(self, folder: TrialFolder) -> None:
        self._folder = folder
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def write(self, state: State) -> None:
        """Start writing a `snapshot`; waits for the one before. Raises what that one failed with."""
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(state,), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is being written; raises what the writer failed with (such as a full disk)."""
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
        try:
            data = pack(state)
            failpoint("save", state["step"])
            # The streams must be on disk as far as this checkpoint counts them.
            for stream in (self._folder.epochs, self._folder.steps):
                sync(stream)
            current = self._folder.path / "checkpoint.pt"
            if current.exists():
                current.replace(self._folder.path / "checkpoint.previous.pt")
                sync_folder(self._folder.path)
            failpoint("between", state["step"])
            write_atomic(current, data)
        except BaseException as error:
            self._error = error


def load_newest(folder: TrialFolder, key: str) -> tuple[State | None, list[str]]:
    """The newest checkpoint of the trial `key` that can be trusted, and what was said about those that cannot.

    What is damaged, malicious or of another trial is quarantined, and the generation before it is used.
    """
    notes: list[str] = []
    for path in folder.checkpoints():
        try:
            state = unpack(path.read_bytes())
            if state.get("key") != key:
                raise ResultsError("the checkpoint is of another trial")
            return state, notes
        except ResultsError as error:
            aside = quarantine(path, str(error))
            notes.append(f"{path.name}: {error}; moved to {aside.name}")
    return None, notes


def remove(folder: TrialFolder) -> None:
    """Delete the checkpoints once the record stands."""
    for path in folder.checkpoints():
        path.unlink(missing_ok=True)


def save_weights(path: Path, state: Mapping[str, torch.Tensor]) -> str:
    """Write weights for users, readable by plain `torch.load`; their sha256."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomic(path, buffer.getvalue())
    return sha256(buffer.getvalue())
