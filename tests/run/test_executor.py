"""Trials given to workers, and real workers: begun, ended, killed, and what is left when either side dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.run.executor import LocalExecutor
from ablate.study.reader import read_study
from ablate.study.trial import Trial


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    path = tmp_path / "study.yaml"
    path.write_text(
        "study: s\ndata: {name: street, size: [32, 32]}\nmodel: {name: unet, width: 2, depth: 2}\n"
        "variants: {unet: {}, noskip: {skip: none}}\ngrid: {lr: [1e-3, 1e-4]}\nseeds: 1\n"
    )
    return read_study(path).trials()


@pytest.mark.parametrize(("keeps_steps", "taken"), [(True, [0, 2, 1, 3]), (False, [0, 1, 2, 3])])
def test_a_worker_stays_with_its_variant_only_where_its_step_was_costly(
    trials: list[Trial], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keeps_steps: bool, taken: list[int]
) -> None:
    monkeypatch.setattr(LocalExecutor, "_send", lambda *_: None)
    executor = LocalExecutor(tmp_path, base=tmp_path, devices=["cpu"], lanes=2, threads=1, keeps_steps=keeps_steps)
    assert [trial.variant for trial in trials] == ["unet", "unet", "noskip", "noskip"]
    pending, begun = list(trials), []
    while pending:
        if not executor.free():
            for slot in executor._slots:  # both trials end
                slot.trial = None
        begun.append(executor.start(pending))
        pending.remove(begun[-1])
    assert [trials.index(trial) for trial in begun] == taken
