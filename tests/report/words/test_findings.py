"""The sentences of a report: they say what was planted, and never more than their statistics."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.frames import load_results
from ablate.claims.verdicts import judge
from ablate.report.format import percent
from ablate.report.words.findings import TOPICS, findings
from ablate.report.words.methods import methods_paragraph
from ablate.study.spec import AugmentSpec
from tests.planted import Truth, plant

Said = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    path = plant(
        tmp_path_factory.mktemp("sentences") / "planted",
        variants=("unet", "noskip", "attention"),
        seeds=4,
        epochs=12,
        images=14,
        truth=Truth(control={"again": "unet"}, missing=(("attention", 1e-3, 3),)),
        measure={"resamples": 400},
    )
    return analyse(load_results(path))


def said_by(analysis: Analysis) -> Said:
    return {(topic, name): text for name, said in findings(analysis).items() for topic, text in said}


@pytest.fixture(scope="module")
def said(study: Analysis) -> Said:
    return said_by(study)


def test_every_sentence_has_a_topic_and_no_number_that_is_missing(said: Said) -> None:
    for (topic, _), text in said.items():
        assert topic in TOPICS
        assert text.endswith(".")
        assert not re.search(r"\bnan\b|\binf\b|None", text), text


def test_a_planted_difference_is_said_with_its_interval_n_and_p(study: Analysis, said: Said) -> None:
    row = study.contrasts.query("variant == 'noskip' and kind == 'own_best'").iloc[0]
    text = said["quality", "noskip"]
    assert text.startswith("noskip scores lower than unet: ")
    delta, low, high = (percent(row[name], sign=True) for name in ("delta", "low", "high"))
    assert f"{delta} points of test mIoU (95% interval {low} to {high}; n = 4" in text
    assert "each at its own best setting" in text


def test_no_difference_is_called_undecided_and_never_none(said: Said) -> None:
    for variant in ("attention", "again"):
        text = said["quality", variant]
        assert text.startswith("Whether ")
        assert "is undecided" in text
    assert "an A/A copy of unet" in said["quality", "again"]


def test_unfinished_trials_make_it_provisional(said: Said) -> None:
    assert "provisional" in said["quality", "attention"]
    assert "provisional" not in said["quality", "noskip"]


def test_where_the_difference_lies_is_said(said: Said) -> None:
    assert re.search(r"lower in (pole|fence) \(−\d+\.\d\)", said["classes", "noskip"])
    assert "uncorrected" in said["classes", "noskip"]
    assert said["detail", "noskip"].startswith("noskip loses fine detail beyond what it loses elsewhere")
    assert "undecided" in said["detail", "attention"]


def test_what_the_rate_does_is_said(said: Said) -> None:
    assert "rises more than that of unet at" in said["stability", "noskip"]
    assert "at lr 1e-3 1 of 4 seeds diverged" in said["stability", "noskip"]
    assert "At no setting" in said["stability", "attention"]
    for variant in ("unet", "noskip", "attention"):
        assert f"{variant} had not converged when training ended at lr 1e-4" in said["convergence", variant]


def test_the_cost_is_said_with_its_interval(study: Analysis, said: Said) -> None:
    row = study.throughput.query("variant == 'noskip' and quantity == 'train_images_per_s'").iloc[0]
    text = said["cost", "noskip"]
    assert f"trains at {row['ratio']:.3f} times its speed ({row['low']:.3f} to {row['high']:.3f})" in text
    assert "0.899 times the parameters" in text


def _with(analysis: Analysis, **changes: Any) -> Analysis:
    """The analysis with the own-best row of noskip changed."""
    contrasts = analysis.contrasts.copy()
    place = contrasts.index[(contrasts["variant"] == "noskip") & (contrasts["kind"] == "own_best")][0]
    for column, value in changes.items():
        contrasts[column] = contrasts[column].astype(object).where(contrasts.index != place, value)
    return replace(analysis, contrasts=contrasts)


def _quality(analysis: Analysis) -> str:
    return said_by(analysis)["quality", "noskip"]


def test_the_words_follow_the_decision_and_not_the_numbers(study: Analysis) -> None:
    analysis = study
    assert "are equivalent within ±0.5 points" in _quality(_with(analysis, decision="equivalent"))
    undecided = _quality(_with(analysis, decision="undecided"))
    assert undecided.startswith("Whether noskip differs from unet is undecided")
    assert "higher than unet" in _quality(_with(analysis, decision="better"))
    none = _quality(_with(analysis, low=np.nan, high=np.nan, reason="fewer than two seeds"))
    assert none == "noskip cannot be compared with unet: fewer than two seeds."


def test_a_confound_and_an_edge_are_part_of_the_sentence(study: Analysis) -> None:
    analysis = study
    variants = analysis.variants.copy()
    variants.loc[variants["variant"] == "noskip", "unbracketed"] = True
    variants.loc[variants["variant"] == "noskip", "bracket"] = "1e-4 is the lowest rate tried"
    changed = replace(_with(analysis, confounded="noskip: epochs 24", lr_confounded=True), variants=variants)
    text = _quality(changed)
    assert "training settings differ as well (noskip: epochs 24)" in text
    assert "the best rate of noskip is not bracketed, as 1e-4 is the lowest rate tried" in text
    rate = said_by(changed)["learning rate", "noskip"]
    assert "confounded with the choice of rate" in rate


def test_what_the_rate_does_to_each_variant_is_said_with_its_numbers(study: Analysis, said: Said) -> None:
    cells = study.cells.query("variant == 'unet'").set_index("setting")
    best, worst = str(cells["regret"].idxmin()), str(cells["regret"].idxmax())
    text = said["learning rate", "unet"]
    again = study.variants.set_index("variant")["stability_of_choice"]["unet"]
    assert text.startswith(
        f"unet did best at {best.replace('=', ' ')} (in {100 * again:.0f} % of the bootstrap replicates)"
    )
    assert f"{100 * cells['regret'][worst]:.1f} points lower at {worst.replace('=', ' ')} (not tested)" in text


@pytest.mark.parametrize(
    ("delta", "low", "high", "words"),
    [
        (-0.031, -0.033, -0.029, "the network depends on where they look."),
        (-0.001, -0.0013, -0.0008, "too little to count, as all of it lies within ±0.5 points."),
        (-0.003, -0.04, 0.034, "this does not show that their pattern helps."),
    ],
)
def test_gates_matter_only_by_more_than_counts_as_a_difference(
    study: Analysis, delta: float, low: float, high: float, words: str
) -> None:
    row = {"variant": "attention", "gate": "all", "delta": delta, "low": low, "high": high, "n": 4, "reason": ""}
    changed = replace(study, gate_ablation=pd.DataFrame([row]))
    text = said_by(changed)["gates", "attention"]
    assert text.endswith(words)
    assert f"by {percent(delta, sign=True)} points (95% interval over 4 seeds " in text


def test_the_methods_paragraph_says_how_the_numbers_were_made(study: Analysis) -> None:
    text = methods_paragraph(study)
    for part in (
        "generated data set street (28 training, 14 validation and 14 test images; 24 × 32 pixels; 5 classes)",
        "The baseline unet was compared with noskip (skip: concat → none) and attention (skip: concat → attention)",
        "A/A copies were trained with seeds of their own (again of unet)",
        "12 epochs with Adam (batch size 8), a constant learning-rate schedule and the cross-entropy loss",
        "lr in {1e-3, 5e-4, 3e-4, 1e-4}",
        "4 seeds (64 trials; 1 diverged; 1 not yet run)",
        "95% intervals from a two-way bootstrap over seeds and images (Multi-Bootstrap, 400 replicates",
        "The 2 comparisons with the baseline are decided at a family-wise level of 0.05 (Holm)",
        "interleaved over 7 rounds",
        "PyTorch 2.13.0",
    ):
        assert part in text
    assert "nan" not in text


def test_the_methods_paragraph_says_how_images_were_varied_and_at_which_rate(study: Analysis) -> None:
    frames, analysis = study.frames, study
    assert "; training images were mirrored at random, at each setting" in methods_paragraph(analysis)
    augment = AugmentSpec(flip=False, scale=(0.8, 1.25), contrast=0.2)
    train = frames.study.train.model_copy(update={"augment": augment, "crop": (16, 16), "warmup_epochs": 2, "lr": 2e-3})
    changed = frames.study.model_copy(update={"train": train, "grid": {}})
    text = methods_paragraph(replace(analysis, frames=replace(frames, study=changed)))
    assert "2 epochs of linear warm-up" in text and "; at the learning rate 2e-3" in text
    assert "zoomed by 0.8 to 1.25, changed in contrast by up to 20% and cropped at random to 16 × 16 pixels" in text
    plain = train.model_copy(update={"augment": AugmentSpec(flip=False), "crop": None})
    changed = frames.study.model_copy(update={"train": plain})
    assert "training images were not augmented" in methods_paragraph(
        replace(analysis, frames=replace(frames, study=changed))
    )


def test_the_methods_paragraph_counts_fresh_seeds_a_variant_and_names_the_rates_beyond_the_edge(tmp_path: Path) -> None:
    truth = Truth(control={"again": "unet"}, diverged=())
    path = plant(
        tmp_path / "x", variants=("unet",), lrs=(1e-3, 3e-4, 1e-4), seeds=1, epochs=6, images=4, confirm=2, truth=truth,
        predictions=False,
    )  # fmt: skip
    frames = load_results(path)
    # A control is confirmed by seeds of its own.
    own = (frames.trials["variant"] == "again") & (frames.trials["role"] == "confirm")
    frames.trials.loc[own, "seed"] += 100
    grid = {"lr": [1e-3, 3e-4]}
    frames = replace(frames, study=frames.study.model_copy(update={"grid": grid}))
    text = methods_paragraph(analyse(frames))
    assert "again with 2 fresh seeds each." in text
    assert "lr in {1e-3, 3e-4}, extended for all variants by lr 1e-4 as a best rate lay on its edge." in text


def test_a_study_without_a_result_says_nothing_it_cannot_know(tmp_path: Path) -> None:
    missing = tuple((name, 1e-3, seed) for name in ("unet", "noskip") for seed in range(2))
    claim = {"metric": "test/mean_iou", "left": "noskip", "op": "<", "right": "unet"}
    path = plant(
        tmp_path / "x", variants=("unet", "noskip"), lrs=(1e-3,), seeds=2, epochs=6, truth=Truth(missing=missing),
        profile=False, claims=[claim],
    )  # fmt: skip
    frames = load_results(path)
    analysis = analyse(frames)
    assert not re.search(
        r"scores (higher|lower)|equivalent|rises more|interval -?\d", " ".join(said_by(analysis).values())
    )
    assert "(4 trials; 4 not yet run)" in methods_paragraph(analysis)
    assert judge(frames, analysis)["verdict"].tolist() == ["inconclusive"]
