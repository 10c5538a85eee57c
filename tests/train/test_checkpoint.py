"""Checkpoints that are damaged, malicious or of another trial are refused, and the one before is used."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest
import torch

from ablate.errors import ResultsError
from ablate.records.files import sha256
from ablate.records.store import TrialFolder
from ablate.train import checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> TrialFolder:
    folder = TrialFolder(tmp_path)
    folder.epochs.touch()
    folder.steps.touch()
    return folder


def write(folder: TrialFolder, step: int, key: str = "k") -> None:
    writer = checkpoint.CheckpointWriter(folder)
    writer.write({"key": key, "step": step, "model": {"weight": torch.full((50,), float(step))}})
    writer.wait()


def test_the_newest_of_two_generations_is_used(folder: TrialFolder) -> None:
    for step in (1, 2, 3):
        write(folder, step)
    state, notes = checkpoint.load_newest(folder, "k")
    assert state is not None and state["step"] == 3 and notes == []
    assert sorted(path.name for path in folder.path.glob("*.pt")) == ["checkpoint.previous.pt", "checkpoint.pt"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
@pytest.mark.fault(16, "put aside and said; the one before is used")
def test_a_damaged_checkpoint_gives_way_to_the_one_before(folder: TrialFolder, damage: str) -> None:
    write(folder, 1)
    write(folder, 2)
    newest = folder.path / "checkpoint.pt"
    data = bytearray(newest.read_bytes())
    if damage == "flip":
        data[random.Random(0).randrange(65, len(data))] ^= 1
    newest.write_bytes({"flip": bytes(data), "truncate": bytes(data[:-7]), "empty": b""}[damage])
    state, notes = checkpoint.load_newest(folder, "k")
    assert state is not None and state["step"] == 1
    assert len(notes) == 1 and "moved to checkpoint.pt.bad" in notes[0]
    assert (folder.path / "checkpoint.pt.bad").exists()


@pytest.mark.fault(16, "every single flipped bit is noticed")
def test_every_single_bit_flip_is_noticed(tmp_path: Path) -> None:
    checkpoint.write_state(tmp_path / "state", {"key": "k", "weight": torch.arange(8.0)})
    data = (tmp_path / "state").read_bytes()
    generator = random.Random(3)
    for _ in range(200):
        damaged = bytearray(data)
        damaged[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        with pytest.raises(ResultsError):
            checkpoint.unpack(bytes(damaged))


@pytest.mark.fault("R4", "refused; its code does not run")
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    target = tmp_path / "owned"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(target),))

    payload = pickle.dumps(Evil())
    with pytest.raises(ResultsError, match="refused"):
        checkpoint.unpack(sha256(payload).encode() + b"\n" + payload)
    assert not target.exists()


@pytest.mark.fault("R3", "put aside, not used")
def test_a_checkpoint_of_another_trial_is_not_used(folder: TrialFolder) -> None:
    write(folder, 5, key="other")
    state, notes = checkpoint.load_newest(folder, "k")
    assert state is None and "another trial" in notes[0]


def test_a_snapshot_does_not_follow_the_training() -> None:
    weight = torch.zeros(3)
    copy = checkpoint.snapshot({"a": [weight], "b": 1})
    weight += 1
    assert torch.equal(copy["a"][0], torch.zeros(3)) and copy["b"] == 1


@pytest.mark.fault(12, "the last checkpoint stays intact")
def test_a_full_disk_is_reported_and_the_checkpoint_before_stays(folder: TrialFolder) -> None:
    import resource

    write(folder, 1)
    writer = checkpoint.CheckpointWriter(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        writer.write({"key": "k", "step": 2, "model": {"weight": torch.zeros(1000)}})
        with pytest.raises(OSError, match="too large"):
            writer.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    state, _ = checkpoint.load_newest(folder, "k")
    assert state is not None and state["step"] == 1


def test_a_checkpoint_is_due_after_twenty_times_what_the_last_one_cost(
    folder: TrialFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("ablate.train.checkpoint.time.monotonic", lambda: now[0])
    writer = checkpoint.CheckpointWriter(folder, every=30.0)
    now[0] += 29.9
    assert not writer.due()
    now[0] += 0.1
    assert writer.due()

    def slow(_path: Path, _state: checkpoint.State) -> None:
        now[0] += 4.0

    monkeypatch.setattr(checkpoint, "write_state", slow)
    writer.write({"key": "k", "step": 1})
    writer.wait()
    now[0] += 75.0
    assert not writer.due()
    now[0] += 1.0
    assert writer.due(), "80 s since it was begun"
    assert checkpoint.CheckpointWriter(folder, every=0.0).due()


def test_bytes_of_nested_tensors(tmp_path: Path) -> None:
    state = {"a": torch.zeros(3), "b": [torch.zeros(2, dtype=torch.uint8), {"c": 7, "d": "text"}], "e": None}
    assert checkpoint.tensor_bytes(state) == 12 + 2
    checkpoint.write_state(tmp_path / "state", state)
    assert checkpoint.tensor_bytes(state) <= (tmp_path / "state").stat().st_size
