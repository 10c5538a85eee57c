"""A trial end to end: the record, exact resume after a kill at any step, independence of what ran before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tests.tiny_plugin  # noqa: F401  (registers the tiny components)
from ablate.measure import segmentation
from ablate.records.images import unpack_maps
from ablate.records.record import Record
from ablate.records.store import Results, TrialFolder
from ablate.study.reader import read_study
from ablate.study.study import Study
from ablate.study.trial import Trial
from ablate.train import checkpoint
from ablate.train.context import Context
from ablate.train.engine.config import Decisions
from ablate.train.loop import Interrupted, Options, run_trial
from tests.conftest import missing

ROOT = Path(__file__).resolve().parents[2]
STUDY = """\
study: tiny
data: {name: tiny}
model: {name: two_convolutions}
variants: {narrow: {}, wide: {width: 8}}
grid: {lr: [1e-2, 1e-3]}
seeds: 1
train: {epochs: 4, batch_size: 4}
measure: {lr_headroom: 2}
"""
DECISIONS = Decisions("test", "float32", True, "eager", 1, 1, True, {})


def make_study(folder: Path, text: str = STUDY) -> Study:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return read_study(path)


def bench(folder: Path) -> Context:
    return Context("cpu", DECISIONS, folder)


def run(trial: Trial, study: Study, workbench: Context, results: Path, **options: Any) -> tuple[Record, TrialFolder]:
    folder = Results(results).trial(trial.name)
    # Also the last state, so that all of it is compared.
    return run_trial(trial, workbench, folder, Options(study.spec.measure, **{"keep": "last", **options})), folder


def content(folder: TrialFolder) -> dict[str, Any]:
    """All that a trial leaves, less what may differ between two runs of it."""
    record = json.loads(folder.record.read_bytes())
    del record["timing"], record["provenance"]
    found: dict[str, Any] = {"record": record}
    for path in (folder.epochs, folder.steps, folder.images, folder.predictions):
        found[path.name] = path.read_bytes() if path.exists() else None
    if folder.best.exists():
        # The numbers, not the file: pickle writes equal objects differently when they are one or two in memory.
        found["best"] = plain(torch.load(folder.best, weights_only=True))
        found["last"] = plain(checkpoint.unpack(folder.last.read_bytes()))
    return found


def plain(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return str(state.dtype), tuple(state.shape), state.numpy().tobytes()
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    return [plain(value) for value in state] if isinstance(state, (list, tuple)) else state


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    study = make_study(folder)
    workbench = bench(folder)
    for trial in study.trials():
        run(trial, study, workbench, folder / "results")
    return study, folder / "results"


def test_the_record_says_what_the_files_hold(undisturbed: tuple[Study, Path]) -> None:
    study, results = undisturbed
    trial = study.trials()[0]
    folder = Results(results).trial(trial.name)
    record = Record.model_validate_json(folder.record.read_bytes())
    epochs = [json.loads(line) for line in folder.epochs.read_text().splitlines()]
    steps = np.fromfile(folder.steps, dtype="<f4").reshape(-1, 2)
    assert record.status == "complete" and len(epochs) == 4 and len(steps) == 4 * 3
    assert epochs[1]["train_loss"] == pytest.approx(steps[3:6, 0].mean(), rel=1e-6)
    best = max(epochs, key=lambda row: row["val_mean_iou"])
    assert record.metrics["best_epoch"] == best["epoch"]
    assert record.metrics["val_mean_iou"] == best["val_mean_iou"]
    counts = np.load(folder.images)
    data = bench(results).data(trial.data).dataset
    preds = unpack_maps(folder.predictions)
    np.testing.assert_array_equal(
        counts["test"], segmentation.image_counts(np.asarray(preds), data.splits["test"].masks, 3)
    )
    assert record.metrics["test_mean_iou"] == pytest.approx(float(segmentation.mean_iou(counts["test"], axis=0)))
    assert not folder.checkpoints()


def test_torchmetrics_finds_the_same_score_in_the_saved_predictions(undisturbed: tuple[Study, Path]) -> None:
    try:
        from torchmetrics.classification import MulticlassJaccardIndex
    except ImportError:
        missing("torchmetrics is not installed")
    study, results = undisturbed
    for trial in study.trials():
        folder = Results(results).trial(trial.name)
        target = bench(results).data(trial.data).dataset.splits["test"].masks
        theirs = MulticlassJaccardIndex(3, average="macro", ignore_index=255)
        theirs.update(torch.tensor(np.asarray(unpack_maps(folder.predictions))).long(), torch.tensor(target).long())
        record = Record.model_validate_json(folder.record.read_bytes())
        assert record.metrics["test_mean_iou"] == pytest.approx(theirs.compute().item(), abs=1e-6)


def test_the_weights_kept_are_those_that_were_tested(undisturbed: tuple[Study, Path]) -> None:
    study, results = undisturbed
    trial = study.trials()[1]
    folder = Results(results).trial(trial.name)
    network = bench(results).network(trial)
    network.model.load_state_dict(torch.load(folder.best, weights_only=True))
    from ablate.train.evaluate import evaluate

    workbench = bench(results)
    test = evaluate(network, workbench.data(trial.data).splits["test"], 4, keep_preds=True)
    assert test.preds is not None
    np.testing.assert_array_equal(test.preds, unpack_maps(folder.predictions))


def test_a_record_does_not_depend_on_what_its_process_ran_before(
    undisturbed: tuple[Study, Path], tmp_path: Path
) -> None:
    study, results = undisturbed
    for trial in reversed(study.trials()):
        torch.rand(7)  # somebody drew from the global generator
        _, folder = run(trial, study, bench(tmp_path), tmp_path / "again")
        assert content(folder) == content(Results(results).trial(trial.name))


def test_probes_do_not_change_a_bit_of_the_training(undisturbed: tuple[Study, Path], tmp_path: Path) -> None:
    _, results = undisturbed
    plain = make_study(tmp_path, STUDY.replace("lr_headroom: 2", "gradients: 0"))
    trial = plain.trials()[0]
    _, folder = run(trial, plain, bench(tmp_path), tmp_path / "plain")
    with_probes, without = content(Results(results).trial(trial.name)), content(folder)
    assert with_probes["record"].pop("layers") and not without["record"].pop("layers")
    assert with_probes == without


@pytest.mark.parametrize("stop_at", [1, 3, 7, 11])
def test_a_trial_asked_to_stop_goes_on_to_the_same_record(
    undisturbed: tuple[Study, Path], tmp_path: Path, stop_at: int
) -> None:
    study, results = undisturbed
    trial = study.trials()[0]
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        run(trial, study, bench(tmp_path), tmp_path, should_stop=lambda: "asked" if next(calls) == stop_at else None)
    record, folder = run(trial, study, bench(tmp_path), tmp_path)
    assert f"resumed at step {stop_at}" in record.provenance["notes"]
    # Seconds and rates are those of both goes together.
    split = bench(tmp_path).data(trial.data).splits["train"]
    trained = record.timing["train_s"] * record.timing["shared_train_images_per_s"]
    assert trained == pytest.approx(trial.train["epochs"] * len(split))
    assert content(folder) == content(Results(results).trial(trial.name))


KILLED = """\
import sys
from pathlib import Path
import tests.train.test_loop as t
folder, results = Path(sys.argv[1]), Path(sys.argv[2])
study = t.make_study(folder)
t.run(study.trials()[0], study, t.bench(folder), results, checkpoint_every=0.0)
"""


@pytest.mark.faults
@pytest.mark.parametrize("place", ["step:5", "epoch:2", "save:4", "between:7"])
@pytest.mark.fault(1, "goes on from the last checkpoint to the same record, bit for bit")
def test_a_trial_killed_anywhere_goes_on_to_the_same_record(
    undisturbed: tuple[Study, Path], tmp_path: Path, place: str
) -> None:
    study, results = undisturbed
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "ABLATE_FAILPOINT": place, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(tmp_path / "killed")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    trial = study.trials()[0]
    record, folder = run(trial, study, bench(tmp_path), tmp_path / "killed")
    assert any("resumed at step" in note for note in record.provenance["notes"])
    assert content(folder) == content(Results(results).trial(trial.name))
    assert not list(folder.path.glob(".*.part"))


@pytest.mark.fault("R3", "one of another network, with a right digest: put aside, the one before is used")
@pytest.mark.parametrize("odd", ["shape", "optimizer", "nothing else", "no weights"])
def test_a_checkpoint_of_another_network_is_put_aside(
    undisturbed: tuple[Study, Path], tmp_path: Path, odd: str
) -> None:
    study, results = undisturbed
    trial = study.trials()[0]
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        run(
            trial, study, bench(tmp_path), tmp_path,
            checkpoint_every=0.0, should_stop=lambda: "asked" if next(calls) == 5 else None,
        )  # fmt: skip
    newest = Results(tmp_path).trial(trial.name).path / "checkpoint.pt"
    state = checkpoint.unpack(newest.read_bytes())
    if odd == "shape":
        name = next(iter(state["model"]))
        state["model"][name] = state["model"][name][:1]
    elif odd == "optimizer":
        state["optimizer"]["param_groups"][0]["params"].pop()
    elif odd == "no weights":
        state["best"]["weights"] = {"another": torch.zeros(1)}
    else:
        state = {"key": trial.key, "step": 3}
    checkpoint.write_state(newest, state)
    record, folder = run(trial, study, bench(tmp_path), tmp_path)
    notes = record.provenance["notes"]
    assert any("not that of this network; moved to checkpoint.pt.bad" in note for note in notes), notes
    assert any("resumed at step" in note for note in notes), notes
    assert content(folder) == content(Results(results).trial(trial.name))


@pytest.mark.fault(9, "`diverged`, with epoch and step")
def test_a_loss_that_is_not_finite_is_a_result_with_its_place(tmp_path: Path) -> None:
    text = STUDY.replace("name: two_convolutions", "name: misbehaving, act: explode, at: 5").replace(
        "variants: {narrow: {}, wide: {width: 8}}", "variants: {only: {}}"
    )
    study = make_study(tmp_path, text.replace("measure: {lr_headroom: 2}", "measure: {gradients: 0}"))
    record, folder = run(study.trials()[0], study, bench(tmp_path), tmp_path)
    assert record.status == "diverged" and record.reason == "loss not finite in epoch 2, step 5"
    assert record.metrics["diverged_epoch"] == 2 and record.metrics["diverged_step"] == 5
    steps = np.fromfile(folder.steps, dtype="<f4").reshape(-1, 2)
    assert len(steps) == 5 and np.isfinite(steps[:4]).all() and not np.isfinite(steps[4, 0])
    assert not folder.predictions.exists() and record.metrics.get("test_mean_iou") is None


def test_variants_of_one_seed_see_the_same_batches(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    seen: dict[str, list[bytes]] = {}
    for trial in study.trials()[::2]:
        workbench = bench(tmp_path)
        network = workbench.network(trial)
        original = network.training_loss

        def spy(
            images: torch.Tensor, target: torch.Tensor, name: str = trial.variant, inner: Any = original
        ) -> torch.Tensor:
            seen.setdefault(name, []).append(images.numpy().tobytes() + target.numpy().tobytes())
            result: torch.Tensor = inner(images, target)
            return result

        network.training_loss = spy
        run(trial, study, workbench, tmp_path / "seen")
    assert len(seen["narrow"]) == 12 and seen["narrow"] == seen["wide"]


VOID = STUDY.replace("variants: {narrow: {}, wide: {width: 8}}", "variants: {only: {}}").replace(
    "train: {epochs: 4, batch_size: 4}", "train: {epochs: 2, batch_size: 1, LOSS}"
)


@pytest.mark.parametrize(
    "loss", ["loss: cross_entropy", "loss: dice", "loss: cross_entropy_dice", "class_weights: [0.0, 1.0, 1.0]"]
)
def test_a_batch_in_which_nothing_counts_is_no_divergence(tmp_path: Path, loss: str) -> None:
    study = make_study(tmp_path, VOID.replace("LOSS", loss))
    trial, workbench = study.trials()[0], bench(tmp_path)
    data = workbench.data(trial.data)
    # One training image without a label, or of the class without a weight only; so is one of the validation.
    for split in (data.splits["train"], data.splits["val"]):
        split.masks[1] = 0 if "weights" in loss else 255
    record, folder = run(trial, study, workbench, tmp_path)
    assert record.status == "complete"
    steps = np.fromfile(folder.steps, dtype="<f4").reshape(-1, 2)
    assert [int((row == 0).all()) for row in steps].count(1) == 2, "once an epoch"
    notes = [note for note in record.provenance["notes"] if "loss and gradient are 0" in note]
    assert len(notes) == 1 and "no pixel of the batch counts" in notes[0]


def test_a_trial_that_cannot_be_written_has_no_record(
    undisturbed: tuple[Study, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any, **_arrays: Any) -> None:
        raise OSError(28, "No space left on device")

    study, _ = undisturbed
    trial = study.trials()[0]
    monkeypatch.setattr("ablate.train.outcome.write_arrays", full)
    with pytest.raises(OSError, match="No space left"):
        run(trial, study, bench(tmp_path), tmp_path)
    assert not Results(tmp_path).trial(trial.name).record.exists()
