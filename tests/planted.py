"""A results folder of real records in which the truth is known, because it was planted.

`plant` writes what a run writes, by the store's own functions: predictions are corrupted targets, counts are computed
from the predictions, curves carry noise. `Truth` says what is true of it. Everything is a function of `seed`.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ablate.records import images as pictures
from ablate.records.files import write_atomic
from ablate.records.record import Record
from ablate.records.store import Results, publish_record, to_json
from tests.planted_pixels import IGNORE, Corruptor, count, mean_iou, scenes

CLASSES = ("sky", "building", "road", "fence", "pole", "tree", "car", "sign", "pavement", "person", "rider")
PALETTE = (
    (128, 128, 128),
    (128, 0, 0),
    (128, 64, 128),
    (64, 64, 128),
    (192, 192, 128),
    (128, 128, 0),
    (64, 0, 128),
    (192, 128, 128),
    (60, 40, 222),
    (64, 64, 0),
    (0, 128, 192),
)
MODELS: dict[str, dict[str, Any]] = {
    "unet": {},
    "noskip": {"skip": "none"},
    "residual": {"block": "residual"},
    "attention": {"skip": "attention"},
}


@dataclass(frozen=True)
class Truth:
    """What is true of a planted study. Effects are fractions of mIoU; a variant that is not named has none."""

    delta: Mapping[str, float] = field(default_factory=lambda: {"noskip": -0.06, "residual": 0.03})
    """Test mIoU of the variant minus the baseline's, at rates equally far from their own best."""
    optimum: Mapping[str, float] = field(default_factory=dict)
    """The learning rate at which the variant is best (default `best_lr`)."""
    detail: Mapping[str, float] = field(default_factory=lambda: {"noskip": 8.0})
    """How much likelier an error is at boundaries and thin structures than elsewhere (default 1.5)."""
    unstable_from: Mapping[str, float] = field(default_factory=lambda: {"noskip": 5e-4})
    """The rate from which the variant's training loss rises again and again."""
    diverges_from: Mapping[str, float] = field(default_factory=dict)
    """The rate from which every seed of the variant diverges."""
    diverged: tuple[tuple[str, float, int], ...] = (("noskip", 1e-3, 1),)
    """Single trials (variant, lr, seed) that diverge."""
    under_converged_to: float = 1e-4
    """The rate up to which val mIoU still climbs when the epochs end."""
    control: Mapping[str, str] = field(default_factory=dict)
    """A/A copies: name of the control -> variant that it copies."""
    missing: tuple[tuple[str, float, int], ...] = ()
    """Trials that have not run."""
    failed: tuple[tuple[str, float, int], ...] = ()
    """Trials that the machine failed."""
    throughput: Mapping[str, float] = field(
        default_factory=lambda: {"noskip": 1.15, "residual": 0.82, "attention": 0.93}
    )
    """Training images per second as a multiple of the baseline's."""
    best_lr: float = 3e-4
    base: float = 0.62
    """Test mIoU of the baseline at its best rate."""
    curvature: float = 0.20
    """Loss of mIoU per squared decade from the best rate."""
    seed_std: float = 0.006
    """Standard deviation of the seeds' mIoU within a cell."""

    def mean_iou(self, variant: str, lr: float) -> float:
        """The cell's expected test mIoU where no seed diverges."""
        source = self.control.get(variant, variant)
        away = math.log10(lr / self.optimum.get(source, self.best_lr))
        return self.base + self.delta.get(source, 0.0) - self.curvature * away**2

    def diverges(self, variant: str, lr: float, seed: int) -> bool:
        """Whether the trial ends in a loss that is not finite."""
        source = self.control.get(variant, variant)
        threshold = self.diverges_from.get(source, math.inf)
        return lr >= threshold or (variant, lr, seed) in self.diverged

    def unstable(self, variant: str, lr: float) -> bool:
        """Whether the cell's training loss rises."""
        return lr >= self.unstable_from.get(self.control.get(variant, variant), math.inf)


def plant(
    path: Path | str,
    *,
    variants: Sequence[str] = ("unet", "noskip", "residual", "attention"),
    lrs: Sequence[float] = (1e-3, 5e-4, 3e-4, 1e-4),
    seeds: int | Sequence[int] = 3,
    epochs: int = 20,
    images: int = 20,
    classes: int = 5,
    size: tuple[int, int] = (24, 32),
    truth: Truth | None = None,
    groups: int = 0,
    confirm: int = 0,
    claims: Sequence[Mapping[str, Any]] = (),
    measure: Mapping[str, Any] | None = None,
    steps_per_epoch: int = 8,
    profile: bool = True,
    predictions: bool = True,
    seed: int = 0,
    name: str = "planted",
) -> Path:
    """Write a results folder to `path` and return it; 48 trials of 20 images take about two seconds.

    `variants` are names, the first is the baseline; those of `truth.control` are appended. `groups` > 0 says that the
    images of both splits come in that many sequences; `confirm` adds that many fresh seeds at the rate that is best in
    truth. `predictions=False` leaves the pictures out (curves and counts stay).
    """
    truth = Truth() if truth is None else truth
    variants = [*variants, *(control for control in truth.control if control not in variants)]
    seed_list = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    results = Results(path)
    results.trials.mkdir(parents=True)
    results.test.mkdir()
    test = scenes(images, size, classes, _rng(seed, "test"))
    val = scenes(images, size, classes, _rng(seed, "val"))
    splits = {"val": Corruptor(val, classes, _rng(seed, "val-u")), "test": Corruptor(test, classes, _rng(seed, "u"))}

    plan = [
        _planned(name, variant, float(lr), number, role)
        for variant in variants
        for lr, number, role in [
            *((lr, number, "main") for lr in lrs for number in seed_list),
            *((_best_rate(truth, variant, lrs), max(seed_list) + 1 + extra, "confirm") for extra in range(confirm)),
        ]
    ]
    spec = _study(name, variants, lrs, seeds, epochs, size, truth, confirm, claims, measure)
    write_atomic(results.path / "study.yaml", yaml.safe_dump(spec, sort_keys=False).encode())
    write_atomic(results.run, to_json(_run(name, variants, plan, truth, images, classes)))
    if profile:
        write_atomic(results.profile, to_json(_profile(variants, truth, size, _rng(seed, "profile"))))
    _write_test(results, test, classes, size, groups, _rng(seed, "pictures"))
    for entry in plan:
        _write_trial(results, entry, spec, truth, splits, epochs, steps_per_epoch, classes, predictions, seed)
    return results.path


def _rng(*words: object) -> np.random.Generator:
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def _best_rate(truth: Truth, variant: str, lrs: Sequence[float]) -> float:
    return float(max(lrs, key=lambda lr: truth.mean_iou(variant, lr)))


def _rate_text(lr: float) -> str:
    mantissa, exponent = f"{lr:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _planned(study: str, variant: str, lr: float, seed: int, role: str) -> dict[str, Any]:
    key = hashlib.sha256(f"{study}/{variant}/{lr}/{seed}/{role}".encode()).hexdigest()
    trial = f"{variant}-lr{_rate_text(lr)}-seed{seed}-{key[:8]}"
    return {"name": trial, "key": key, "variant": variant, "settings": {"lr": lr}, "seed": seed, "role": role}


def _model(variant: str, truth: Truth) -> dict[str, Any]:
    return MODELS.get(truth.control.get(variant, variant), {"width": 8 + len(variant)})


def _study(
    name: str,
    variants: Sequence[str],
    lrs: Sequence[float],
    seeds: int | Sequence[int],
    epochs: int,
    size: tuple[int, int],
    truth: Truth,
    confirm: int,
    claims: Sequence[Mapping[str, Any]],
    measure: Mapping[str, Any] | None,
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "study": name,
        "data": {"name": "street", "size": list(size)},
        "model": {"name": "unet", "width": 8},
        "variants": {
            variant: {**_model(variant, truth), **({"control": True} if variant in truth.control else {})}
            for variant in variants
        },
        "baseline": variants[0],
        "grid": {"lr": [float(lr) for lr in lrs]},
        "seeds": seeds if isinstance(seeds, int) else list(seeds),
        "train": {"epochs": epochs, "batch_size": 8, "optimizer": "adam"},
    }
    if measure:
        spec["measure"] = dict(measure)
    if confirm:
        spec["confirm"] = {"seeds": confirm}
    if claims:
        spec["claims"] = [dict(claim) for claim in claims]
    return spec


_PARAMETERS = {"unet": 486_000, "noskip": 437_000, "residual": 507_000, "attention": 492_000}


def _run(
    name: str, variants: Sequence[str], plan: list[dict[str, Any]], truth: Truth, images: int, classes: int
) -> dict[str, Any]:
    base = _model(variants[0], truth)
    described = {}
    for variant in variants:
        own = _model(variant, truth)
        fields = sorted({*base, *own})
        defaults: dict[str, Any] = {"skip": "concat", "block": "plain", "width": 8}
        described[variant] = {
            "model": {"name": "unet", **defaults, **own},
            "differs": {
                field: [base.get(field, defaults.get(field)), own.get(field, defaults.get(field))] for field in fields
            },
            "parameters": _PARAMETERS.get(truth.control.get(variant, variant), 486_000),
            "forward_flops": 380 * _PARAMETERS.get(truth.control.get(variant, variant), 486_000),
            "modules": {"added": ["gate0", "gate1"] if variant == "attention" else [], "removed": []},
            "control": variant in truth.control,
        }
    return {
        "schema_version": 1,
        "study": name,
        "command": "ablate run planted.yaml",
        "versions": {"ablate": "0.1.0", "python": "3.12.3", "torch": "2.13.0", "numpy": np.__version__},
        "device": {"kind": "cpu", "name": "planted", "cores": 2},
        "git": {"commit": "0" * 40, "dirty": False},
        "data": {
            "fingerprint": hashlib.sha256(name.encode()).hexdigest(),
            "classes": list(CLASSES[:classes]),
            "splits": {"train": 2 * images, "val": images, "test": images},
        },
        "plugins": [],
        "decisions": {"precision": {"value": "float32", "why": "the device computes bfloat16 in software"}},
        "variants": described,
        "plan": plan,
    }


def _profile(
    variants: Sequence[str], truth: Truth, size: tuple[int, int], rng: np.random.Generator, rounds: int = 7
) -> dict[str, Any]:
    entries = {}
    drift = 1 + 0.03 * rng.standard_normal(rounds)  # the machine's, common to all variants of a round
    for variant in variants:
        source = truth.control.get(variant, variant)
        factor = truth.throughput.get(source, 1.0)
        training = 210 * factor * drift * (1 + 0.01 * rng.standard_normal(rounds))
        inference = 640 * factor * drift * (1 + 0.01 * rng.standard_normal(rounds))
        entries[variant] = {
            "parameters": _PARAMETERS.get(source, 486_000),
            "forward_flops": 380 * _PARAMETERS.get(source, 486_000),
            "train_images_per_s": training.tolist(),
            "inference_images_per_s": inference.tolist(),
            "latency_ms": (1e3 / 640 / factor * rng.lognormal(0, 0.08, 40)).tolist(),
            "peak_memory_bytes": int(180e6 / factor),
        }
    return {
        "device": "cpu",
        "machine": "planted",
        "rounds": rounds,
        "batch_size": 8,
        "size": list(size),
        "precision": "float32",
        "engine": "eager",
        "variants": entries,
    }


def _write_test(
    results: Results,
    test: np.ndarray,
    classes: int,
    size: tuple[int, int],
    groups: int,
    rng: np.random.Generator,
) -> None:
    n = len(test)

    def members(prefix: str) -> list[str] | None:
        return [f"{prefix}{index * groups // n:02d}" for index in range(n)] if groups else None

    index = {
        "classes": list(CLASSES[:classes]),
        "palette": [list(colour) for colour in PALETTE[:classes]],
        "ignore_index": IGNORE,
        "size": list(size),
        "names": [f"test{image:04d}" for image in range(n)],
        "groups": members("test"),
        "val_names": [f"val{image:04d}" for image in range(n)],
        "val_groups": members("val"),
        "fingerprint": hashlib.sha256(results.path.name.encode()).hexdigest(),
    }
    write_atomic(results.test / "index.json", to_json(index))
    write_atomic(results.test / "targets.zip", pictures.pack(test))
    colours = np.zeros((256, 3), np.int16)
    colours[:classes] = PALETTE[:classes]
    noisy = colours[test] + rng.integers(-25, 26, (*test.shape, 3))
    write_atomic(results.test / "images.zip", pictures.pack_images(np.clip(noisy, 0, 255).astype(np.uint8)))


def _curves(
    entry: Mapping[str, Any], truth: Truth, epochs: int, steps_per_epoch: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps (S, 2) of loss and gradient norm, val loss (E,), and val mIoU (E,) relative to the best, all noisy."""
    variant, lr = entry["variant"], entry["settings"]["lr"]
    epoch = np.arange(1, epochs + 1)
    speed = epochs / 12 * (truth.best_lr / lr) ** 0.5
    if lr <= truth.under_converged_to:
        shape = 0.55 + 0.45 * epoch / epochs
    else:
        shape = 1 - 0.8 * np.exp(-epoch / speed)
    share = shape / shape[-1] + 0.0008 * rng.standard_normal(epochs)
    loss = 0.45 + 1.2 * np.exp(-epoch / (1.3 * speed))
    if truth.unstable(variant, lr):
        # Every few epochs the loss jumps up and comes back.
        wave = np.where((epoch > epochs // 3) & (epoch % 4 < 2), 0.8 + 0.5 * rng.random(), 0.0)
        loss = loss * (1 + wave)
        # Val mIoU wavers to the end, but without a trend.
        share = share - 0.06 * ((epochs - epoch) % 2)
    steps = np.repeat(loss, steps_per_epoch) * rng.lognormal(0, 0.06, epochs * steps_per_epoch)
    norms = np.repeat(0.5 + loss, steps_per_epoch) * rng.lognormal(0, 0.15, epochs * steps_per_epoch)
    val_loss = loss * 1.1 + 0.01 * rng.standard_normal(epochs)
    return np.stack([steps, norms], axis=1).astype("<f4"), val_loss, share


def _write_trial(
    results: Results,
    entry: Mapping[str, Any],
    spec: Mapping[str, Any],
    truth: Truth,
    splits: Mapping[str, Corruptor],
    epochs: int,
    steps_per_epoch: int,
    classes: int,
    predictions: bool,
    seed: int,
) -> None:
    variant, lr, number = entry["variant"], entry["settings"]["lr"], entry["seed"]
    if (variant, lr, number) in truth.missing:
        return
    folder = results.trial(entry["name"])
    folder.path.mkdir()
    record = Record(
        key=entry["key"],
        study=spec["study"],
        variant=variant,
        settings=dict(entry["settings"]),
        seed=number,
        role=entry["role"],
        model={"name": "unet", "width": 8, **_model(variant, truth)},
        data=dict(spec["data"]),
        train={**spec["train"], "lr": lr, "schedule": "constant"},
        status="failed",
        reason="killed by signal 9 (out of memory?)",
        timing={"wall_s": 3.0},
        provenance={"attempt": 2},
    )
    if (variant, lr, number) in truth.failed:
        publish_record(folder, record)
        return
    rng = _rng(seed, variant, lr, number)
    steps, val_loss, share = _curves(entry, truth, epochs, steps_per_epoch, rng)
    wanted = truth.mean_iou(variant, lr) + truth.seed_std * rng.standard_normal()
    curve = np.clip(wanted * share / share.max(), 0.01, 1.0)
    shared = {"parameters": float(_PARAMETERS.get(truth.control.get(variant, variant), 486_000))}
    shared |= {"steps_per_epoch": float(steps_per_epoch), "initial_val_loss": math.log(classes)}
    timing = {"wall_s": float(9 + rng.random()), "shared_train_images_per_s": float(150 + 10 * rng.random())}
    layers = _layers(variant, truth, classes, epochs, rng)
    if truth.diverges(variant, lr, number):
        last = max(2, epochs // 3)
        steps = steps[: last * steps_per_epoch - 2]
        steps[-1, 0] = np.nan
        _write_curves(folder.epochs, lr, steps, val_loss[:last], curve[:last], steps_per_epoch, broken=True)
        folder.steps.write_bytes(steps.tobytes())
        metrics = shared | {
            "epochs_run": float(last),
            "diverged_epoch": float(last),
            "diverged_step": float(len(steps)),
        }
        reason = f"the loss is nan at step {len(steps)} (epoch {last})"
        update: dict[str, Any] = {
            "status": "diverged",
            "reason": reason,
            "metrics": metrics,
            "timing": timing,
            "layers": layers,
        }
        publish_record(folder, record.model_copy(update=update))
        return

    best = int(curve.argmax())
    detail = truth.detail.get(truth.control.get(variant, variant), 1.5)
    generalisation = 0.3 * truth.seed_std * rng.standard_normal()
    preds = {
        "val": splits["val"].corrupt(float(curve[best]), detail, rng),
        "test": splits["test"].corrupt(float(curve[best]) + generalisation, detail, rng),
    }
    counts = {split: count(preds[split], splits[split].target, classes) for split in preds}
    totals = {split: counts[split].sum(0) for split in counts}
    curve[best] = mean_iou(totals["val"])
    curve = np.minimum(curve, curve[best])
    test_loss = 0.4 + 2 * counts["test"][..., 2].sum(1) / counts["test"][..., [0, 2]].sum((1, 2))
    tp, fp, fn = totals["test"].T
    metrics = shared | {
        "best_epoch": float(best + 1),
        "epochs_run": float(epochs),
        "val_loss": float(val_loss[best]),
        "val_mean_iou": mean_iou(totals["val"]),
        "final_val_loss": float(val_loss[-1]),
        "test_loss": float(test_loss.mean()),
        "test_mean_iou": mean_iou(totals["test"]),
        "test_pixel_accuracy": float(tp.sum() / (tp + fn).sum()),
        "test_dice": float(np.mean((2 * tp / (2 * tp + fp + fn))[(tp + fp + fn) > 0])),
    }
    _write_curves(folder.epochs, lr, steps, val_loss, curve, steps_per_epoch)
    folder.steps.write_bytes(steps.tobytes())
    buffer = io.BytesIO()
    np.savez(buffer, val=counts["val"], test=counts["test"], test_loss=test_loss)
    folder.images.write_bytes(buffer.getvalue())
    if predictions:
        (folder.path / "predictions.zip").write_bytes(pictures.pack(preds["test"]))
    update = {
        "status": "complete",
        "reason": None,
        "metrics": metrics,
        "timing": timing,
        "layers": layers,
    }
    publish_record(folder, record.model_copy(update=update))


def _write_curves(
    path: Path,
    lr: float,
    steps: np.ndarray,
    val_loss: np.ndarray,
    val_mean_iou: np.ndarray,
    steps_per_epoch: int,
    *,
    broken: bool = False,
) -> None:
    lines = []
    for epoch in range(len(val_loss)):
        gone = broken and epoch == len(val_loss) - 1
        mean = float(np.mean(steps[epoch * steps_per_epoch : (epoch + 1) * steps_per_epoch, 0]))
        line = {
            "epoch": epoch + 1,
            "lr": lr,
            "train_loss": None if gone else mean,
            "val_loss": None if gone else float(val_loss[epoch]),
            "val_mean_iou": None if gone else float(val_mean_iou[epoch]),
        }
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _layers(
    variant: str, truth: Truth, classes: int, epochs: int, rng: np.random.Generator
) -> dict[str, dict[str, list[float | None]]]:
    """Probes at four epochs: update ratios, gradient norms, the skip paths' share, and gates where there are any."""
    source = truth.control.get(variant, variant)
    names = ["encoder0", "encoder1", "bottleneck", "decoder1", "decoder0"]

    def series(level: float, spread: float = 0.1) -> list[float | None]:
        return [float(level * value) for value in rng.lognormal(0, spread, min(4, epochs))]

    layers: dict[str, dict[str, list[float | None]]] = {
        "update_ratio": {layer: series(2e-3) for layer in names},
        "grad_norm": {layer: series(0.3) for layer in names},
        "lr_headroom": {"all": series(1.5 if truth.unstable(variant, 1e-3) else 4.0, 0.3)},
    }
    share = 0.0 if source == "noskip" else 0.6
    layers["skip_share"] = {layer: series(share) for layer in names[:2]}
    if source == "attention":
        labels = [f"gate{gate}/{name}" for gate in (0, 1) for name in CLASSES[:classes]]
        layers["gate_auroc"] = {label: [float(0.6 + 0.2 * rng.random())] for label in labels}
        layers["gate_auroc_shuffled"] = {label: [float(0.5 + 0.02 * rng.standard_normal())] for label in labels}
        layers["gate_auroc_untrained"] = {label: [float(0.5 + 0.05 * rng.standard_normal())] for label in labels}
        layers["gate_lift"] = {label: [float(1.1 + 0.3 * rng.random())] for label in labels}
        layers["gate_ablation"] = {gate: [float(-0.01 * rng.random())] for gate in ("gate0", "gate1")}
    return layers
