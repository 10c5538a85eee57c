"""Training on a GPU: the CPU's curves, the same bits from every way of executing, and no waiting inside an epoch."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tests.tiny_plugin  # noqa: F401  (registers the tiny components)
from ablate.study.study import Study
from ablate.study.trial import Trial
from ablate.train import evaluate
from ablate.train.batches import DeviceData, DeviceSplit, data_bytes
from ablate.train.context import Context
from ablate.train.device import Clock, Readback
from ablate.train.engine.config import Decisions
from ablate.train.engine.cuda_graph import CapturedStep
from ablate.train.evaluate import image_counts
from ablate.train.loop import Interrupted, _Run
from ablate.train.losses import cross_entropy
from benchmarks.gpu_probe import engine_costs, memory, random_data
from tests.train.test_loop import content, make_study, run

# Never a failure where there is no GPU, whatever is said to be installed: nobody can install one.
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
# cuBLAS reads it when the first handle is made, which may be in any of these tests.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

STUDY = """\
study: street
data: {name: street, size: [32, 48], train: 18, val: 5, test: 5}
model: {name: unet, width: 8, depth: 3, dropout: 0.1}
variants: {unet: {}, noskip: {skip: none}, residual: {block: residual}, attention: {skip: attention}}
baseline: unet
grid: {lr: [1e-3, 3e-4]}
seeds: 1
train: {epochs: 3, batch_size: 8, OPTIONS augment: {scale: [0.8, 1.25], brightness: 0.1}}
measure: {lr_headroom: 1, gradients: 2}
"""
VARIANTS = ["unet", "noskip", "residual", "attention"]


def decided(engine: str = "eager", precision: str = "float32", *, deterministic: bool = True) -> Decisions:
    return Decisions("test", precision, True, engine, 1, 1, deterministic, {})


def bench(folder: Path, device: str = "cuda:0", **how: Any) -> Context:
    return Context(device, decided(**how), folder)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path, STUDY.replace("OPTIONS ", ""))


def first_of(study: Study, variant: str) -> Trial:
    return next(trial for trial in study.trials() if trial.variant == variant)


def losses(found: dict[str, Any]) -> np.ndarray:
    steps = np.frombuffer(found["steps.f32"], dtype="<f4").reshape(-1, 2)
    return np.array(steps[:, 0])


def ran(study: Study, trial: Trial, workbench: Context, results: Path, **options: Any) -> dict[str, Any]:
    _, folder = run(trial, study, workbench, results, **options)
    return content(folder)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("engine", "precision", "tolerance"), [
    ("eager", "float32", 0.01),
    ("graph", "float32", 0.01),
    ("eager", "bfloat16", 0.05),
    ("graph", "bfloat16", 0.05),
])  # fmt: skip
def test_every_variant_follows_the_cpu(
    tmp_path: Path, variant: str, engine: str, precision: str, tolerance: float
) -> None:
    # Without dropout, whose masks differ between devices.
    study = make_study(tmp_path, STUDY.replace("OPTIONS ", "").replace(", dropout: 0.1", ""))
    trial = first_of(study, variant)
    here = ran(study, trial, bench(tmp_path, "cpu"), tmp_path / "cpu")
    there = ran(study, trial, bench(tmp_path, engine=engine, precision=precision), tmp_path / "cuda")
    np.testing.assert_allclose(losses(there), losses(here), rtol=tolerance)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_compiled_step_follows_the_cpu(tmp_path: Path, variant: str) -> None:
    study = make_study(tmp_path, STUDY.replace("OPTIONS ", "").replace(", dropout: 0.1", ""))
    trial = first_of(study, variant)
    here = ran(study, trial, bench(tmp_path, "cpu"), tmp_path / "cpu")
    there = ran(study, trial, bench(tmp_path, engine="compiled"), tmp_path / "cuda")
    np.testing.assert_allclose(losses(there), losses(here), rtol=0.01)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_graph_gives_the_bits_of_the_step_that_it_captured(
    study: Study, tmp_path: Path, variant: str, precision: str
) -> None:
    # Two rates one after the other on each bench: the recording of the first serves the second.
    eager, graph = bench(tmp_path, precision=precision), bench(tmp_path, engine="graph", precision=precision)
    for trial in (trial for trial in study.trials() if trial.variant == variant):
        assert ran(study, trial, graph, tmp_path / "graph") == ran(study, trial, eager, tmp_path / "eager")
    step = graph._step
    assert step is not None and isinstance(step[1], CapturedStep)


def test_a_graph_of_a_compiled_step_gives_the_bits_of_that_step(study: Study, tmp_path: Path) -> None:
    trial = first_of(study, "unet")
    compiled = ran(study, trial, bench(tmp_path, engine="compiled"), tmp_path / "compiled")
    assert ran(study, trial, bench(tmp_path, engine="compiled_graph"), tmp_path / "graph") == compiled


@pytest.mark.parametrize("options", [
    "optimizer: adamw,",
    "optimizer: sgd,",
    "optimizer: sgd, momentum: 0.0,",
    "clip_norm: 0.5, weight_decay: 1e-4,",
    "class_weights: balanced,",
    "loss: dice,",
    "loss: cross_entropy_dice, class_weights: balanced,",
    "crop: [24, 32],",
])  # fmt: skip
def test_everything_that_can_be_set_is_captured(tmp_path: Path, options: str) -> None:
    study = make_study(tmp_path, STUDY.replace("OPTIONS", options))
    trial = first_of(study, "unet")
    eager = ran(study, trial, bench(tmp_path), tmp_path / "eager")
    assert ran(study, trial, bench(tmp_path, engine="graph"), tmp_path / "graph") == eager


@pytest.mark.parametrize("norm", ["group", "instance", "none"])
def test_every_normalisation_has_deterministic_kernels_and_is_captured(tmp_path: Path, norm: str) -> None:
    study = make_study(tmp_path, STUDY.replace("OPTIONS ", "").replace("depth: 3", f"depth: 3, norm: {norm}"))
    trial = first_of(study, "attention")
    eager = ran(study, trial, bench(tmp_path, precision="bfloat16"), tmp_path / "eager")
    assert ran(study, trial, bench(tmp_path, engine="graph", precision="bfloat16"), tmp_path / "graph") == eager


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_a_trial_that_diverged_leaves_nothing_to_the_next_one(tmp_path: Path, engine: str) -> None:
    text = STUDY.replace("OPTIONS", "optimizer: sgd,").replace("depth: 3", "depth: 3, norm: none")
    study = make_study(tmp_path, text.replace("[1e-3, 3e-4]", "[1000.0, 1e-3]"))
    wild, tame = (trial for trial in study.trials() if trial.variant == "unet")
    workbench = bench(tmp_path, engine=engine)
    assert run(wild, study, workbench, tmp_path / "after")[0].status == "diverged"
    after = ran(study, tame, workbench, tmp_path / "after")
    assert after["record"]["status"] == "complete"
    assert after == ran(study, tame, bench(tmp_path, engine=engine), tmp_path / "alone")


@pytest.mark.parametrize(("engine", "stop_at"), [
    *((engine, stop_at) for engine in ("eager", "graph") for stop_at in (1, 2, 3, 5)), ("compiled", 3),
])  # fmt: skip
def test_a_resumed_trial_has_the_bits_of_the_undisturbed_one(
    study: Study, tmp_path: Path, engine: str, stop_at: int
) -> None:
    trial = first_of(study, "attention")
    undisturbed = ran(study, trial, bench(tmp_path, engine=engine), tmp_path / "undisturbed")
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        run(
            trial, study, bench(tmp_path, engine=engine), tmp_path / "stopped",
            should_stop=lambda: "asked" if next(calls) == stop_at else None,
        )  # fmt: skip
    assert ran(study, trial, bench(tmp_path, engine=engine), tmp_path / "stopped") == undisturbed


def test_a_record_does_not_depend_on_what_its_process_ran_before(study: Study, tmp_path: Path) -> None:
    trials = [trial for trial in study.trials() if trial.variant in ("unet", "noskip")]
    together = bench(tmp_path, engine="graph")
    found = {trial.name: ran(study, trial, together, tmp_path / "together") for trial in reversed(trials)}
    for trial in trials:
        assert found[trial.name] == ran(study, trial, bench(tmp_path, engine="graph"), tmp_path / "alone")


def test_probes_do_not_change_a_bit_of_captured_training(study: Study, tmp_path: Path) -> None:
    trial = first_of(study, "unet")
    probed = ran(study, trial, bench(tmp_path, engine="graph"), tmp_path / "probed")
    bare = make_study(tmp_path, STUDY.replace("OPTIONS ", "").replace("lr_headroom: 1, gradients: 2", "gradients: 0"))
    plain = ran(bare, first_of(bare, "unet"), bench(tmp_path, engine="graph"), tmp_path / "plain")
    assert probed["record"].pop("layers") and not plain["record"].pop("layers")
    assert probed == plain


@pytest.fixture
def waiting_is_an_error() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("engine", ["eager", "graph"])
@pytest.mark.usefixtures("waiting_is_an_error")
def test_nothing_inside_an_epoch_waits_for_the_device(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(
        tmp_path, STUDY.replace("OPTIONS ", "").replace("lr_headroom: 1, gradients: 2", "gradients: 0, gates: false")
    )
    step, score = _Run._one_step, evaluate.score

    def strict_step(self: _Run, epoch: int, batch: np.ndarray) -> None:
        torch.cuda.set_sync_debug_mode("error" if self.step else "default")  # the first one may set libraries up
        try:
            step(self, epoch, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def strict_score(*arguments: Any, **more: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return score(*arguments, **more)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(_Run, "_one_step", strict_step)
    monkeypatch.setattr("ablate.train.loop.score", strict_score)
    for variant in ("unet", "attention"):
        record, _ = run(first_of(study, variant), study, bench(tmp_path, engine=engine), tmp_path / "results")
        assert record.status == "complete"


def test_a_loss_that_is_not_finite_is_found_at_its_step_although_the_device_ran_on(tmp_path: Path) -> None:
    text = (
        "study: tiny\ndata: {name: tiny}\nmodel: {name: misbehaving, act: explode, at: 5}\nvariants: {only: {}}\n"
        "grid: {lr: [1e-2]}\nseeds: 1\ntrain: {epochs: 4, batch_size: 4}\nmeasure: {gradients: 0}\n"
    )
    study = make_study(tmp_path, text)
    record, folder = run(study.trials()[0], study, bench(tmp_path), tmp_path / "results")
    assert record.status == "diverged" and record.reason == "loss not finite in epoch 2, step 5"
    steps = np.fromfile(folder.steps, dtype="<f4").reshape(-1, 2)
    assert len(steps) == 5 and np.isfinite(steps[:4]).all() and not np.isfinite(steps[4, 0])
    assert len(folder.epochs.read_text().splitlines()) == 1


def test_counts_and_loss_are_those_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 11, 40, 60, generator=generator)
    target = torch.randint(0, 11, (3, 40, 60), generator=generator).to(torch.uint8)
    target[0, :7] = 255
    preds = logits.argmax(1).to(torch.uint8)
    assert torch.equal(image_counts(preds.cuda(), target.cuda(), 11).cpu(), image_counts(preds, target, 11))
    for weights in (None, torch.rand(11, generator=generator)):
        here = cross_entropy(logits, target, num_classes=11, ignore_index=255, class_weights=weights)
        there = cross_entropy(
            logits.cuda(), target.cuda(), num_classes=11, ignore_index=255,
            class_weights=None if weights is None else weights.cuda(),
        )  # fmt: skip
        torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-6)


def test_numbers_are_read_when_they_have_arrived() -> None:
    values = torch.arange(6.0, device="cuda").view(2, 3)
    reading = Readback([values, values.sum().long()])
    values.zero_()  # later work does not reach what was asked for before
    table, total = reading.wait()
    assert reading.ready() and table.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] and int(total) == 15
    assert not table.is_cuda
    clock = Clock(torch.device("cuda"))
    clock.mark()
    torch.cuda._sleep(10_000_000)
    clock.mark()
    assert clock.seconds(0, 1) > 0


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_a_measurement_knows_the_memory_of_a_trial(tmp_path: Path, engine: str) -> None:
    """Workers on one GPU are planned by what a measurement reserved: no trial may take more than that and its data."""
    text = STUDY.replace("OPTIONS ", "").replace("[32, 48]", "[128, 192]").replace("width: 8", "width: 32")
    study = make_study(tmp_path, text)
    trial, device = first_of(study, "unet"), torch.device("cuda:0")

    def start_counting() -> None:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)

    decisions = bench(tmp_path, engine=engine, precision="bfloat16").decisions
    start_counting()
    there = torch.cuda.memory_reserved(device)
    data = DeviceData(random_data(3, 11, (128, 192), 8), device)
    (cost,) = engine_costs([trial], data, decisions, device, study.spec.measure, engine, 0.05)
    assert cost.error is None
    known = memory(device)["reserved_bytes"] - there
    del data
    start_counting()
    there = torch.cuda.memory_reserved(device)
    workbench = bench(tmp_path, engine=engine, precision="bfloat16")
    run(trial, study, workbench, tmp_path / "results")
    taken = torch.cuda.max_memory_reserved(device) - there
    # Blocks are reserved in steps of up to 20 MiB.
    assert 0 < taken <= 1.1 * known + data_bytes(workbench.data(trial.data).dataset) + 64 * 2**20


def test_a_data_set_that_does_not_fit_is_copied_batch_by_batch(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = first_of(study, "unet")
    resident = ran(study, trial, bench(tmp_path), tmp_path / "resident")
    monkeypatch.setattr("ablate.train.batches.RESIDENT_SHARE", 0.0)
    workbench = bench(tmp_path)
    split: DeviceSplit = workbench.data(trial.data).splits["train"]
    assert not split.images.is_cuda and split.take(np.array([1, 0]))[0].is_cuda
    assert ran(study, trial, workbench, tmp_path / "copied") == resident
