"""Planted studies of counts alone, in memory: many draws from one truth, for the rates at which decisions err."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.frames import Frames
from ablate.study.spec import StudySpec
from ablate.study.trial import Setting
from tests.planted import CLASSES
from tests.planted_pixels import mean_iou

PIXELS = 600


def draw_study(
    rng: np.random.Generator,
    *,
    effects: Mapping[str, Sequence[float]],
    copies: Mapping[str, str] | None = None,
    lrs: Sequence[float] = (1e-3, 3e-4, 1e-4),
    seeds: int = 5,
    images: int = 40,
    classes: int = 5,
    seed_sd: float = 0.06,
    image_sd: float = 0.5,
    interaction_sd: float = 0.15,
    resamples: int = 300,
    diverged: Sequence[tuple[str, float, int]] = (),
    confirm: int = 0,
    groups: Sequence[str] | None = None,
    measure: Mapping[str, Any] | None = None,
    spreads: Mapping[str, float] | None = None,
    variant_sd: float = 0.0,
) -> Frames:
    """One draw of seeds and images from a population.

    `effects` holds for each variant, the baseline first, the log odds of a right pixel at each rate, added to the
    classes' own; seeds, images (the same for all trials) and image × trial add normal noise on that scale. `copies`
    declares A/A controls: name -> variant copied. `confirm` adds that many fresh seeds at each variant's setting of the
    highest mean val mIoU. `groups` names the group of every image, whose images share their hardness. `spreads` gives
    variants a standard deviation between seeds of their own, `variant_sd` is that of what a variant's every seed finds
    harder in an image (or group) than other variants do.
    """
    share = np.array([0.3, 0.25, 0.3, 0.1, 0.05, *[0.05] * 10])[:classes]
    share = share / share.sum()
    own = np.linspace(2.0, 0.6, classes)
    scenes = {
        split: (
            rng.multinomial(PIXELS, share, size=images),
            image_sd * (rng.standard_normal((images, 1)) + 0.5 * rng.standard_normal((images, classes))),
        )
        for split in ("val", "test")
    }
    _, member = np.unique(np.asarray(range(images) if groups is None else groups), return_inverse=True)
    if groups is not None:
        scenes = {
            split: (pixels, image_sd * rng.standard_normal((member.max() + 1, classes))[member])
            for split, (pixels, _) in scenes.items()
        }
    counts: dict[str, dict[str, np.ndarray]] = {}
    rows: list[dict[str, Any]] = []

    taste = {
        (variant, split): variant_sd * rng.standard_normal((member.max() + 1, 1))[member]
        for variant in (effects if variant_sd else ())
        for split in scenes
    }

    def train(variant: str, lr: float, effect: float, seed: int, role: str) -> None:
        key = f"{variant}/{lr}/{seed}"
        luck = (spreads or {}).get(variant, seed_sd) * rng.standard_normal()
        counts[key] = {}
        for split, (pixels, hardness) in scenes.items():
            noise = interaction_sd * rng.standard_normal(hardness.shape)
            hardness = hardness + taste.get((variant, split), 0.0)
            right = 1 / (1 + np.exp(-(own + effect + luck + hardness + noise)))
            tp = rng.binomial(pixels, right)
            fn = pixels - tp
            # What is wrong is taken for another class, in proportion to the classes' shares.
            fp = np.rint((fn.sum(1, keepdims=True) - fn) * share)
            counts[key][split] = np.stack([tp, fp, fn], axis=-1).astype(np.int64)
        gone = (variant, lr, seed) in diverged
        score = {split: 0.0 if gone else mean_iou(counts[key][split].sum(0)) for split in scenes}
        rows.append(
            {"name": key, "key": key, "variant": variant, "setting": Setting({"lr": lr}).text, "lr": lr}
            | {"seed": seed, "role": role, "status": "diverged" if gone else "complete", "reason": ""}
            | {"val_score": score["val"], "test_score": score["test"], "missing": {}}
        )

    for variant, odds in effects.items():
        for lr, effect in zip(lrs, odds, strict=True):
            for seed in range(seeds):
                train(variant, lr, effect, seed, "main")
        if confirm:
            cells = np.array([row["val_score"] for row in rows[-len(lrs) * seeds :]]).reshape(len(lrs), seeds)
            best = int(cells.mean(axis=1).argmax())
            for seed in range(seeds, seeds + confirm):
                train(variant, lrs[best], odds[best], seed, "confirm")
    copies = copies or {}
    width = {name: 8 + number for number, name in enumerate(effects)}
    spec = {
        "study": "drawn",
        "data": {"name": "street"},
        "variants": {name: {"width": width[copies.get(name, name)], "control": name in copies} for name in effects},
        "grid": {"lr": list(lrs)},
        "seeds": seeds,
        "measure": {"resamples": resamples, **(measure or {})},
        "confirm": {"seeds": confirm} if confirm else None,
    }
    names = {split: tuple(map(str, range(images))) for split in scenes}
    return Frames(
        path=Path("drawn"),
        study=StudySpec.model_validate(spec),
        run={},
        profile={},
        axes=("lr",),
        settings={setting.text: setting for setting in (Setting({"lr": lr}) for lr in lrs)},
        class_names=CLASSES[:classes],
        palette=(),
        names=names,
        groups=dict.fromkeys(("val", "test"), None if groups is None else tuple(groups)),
        ignore_index=255,
        trials=pd.DataFrame(rows),
        arrays={key: SimpleNamespace(counts=of_trial) for key, of_trial in counts.items()},  # type: ignore[misc]
        unreadable={},
    )
