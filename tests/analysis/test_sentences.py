"""The sentences of a report: they say what was planted, and never more than their statistics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planted import Truth, plant

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.frames import Frames, load_results
from ablate.analysis.planner import plan_power
from ablate.analysis.protocol import methods_paragraph
from ablate.analysis.sentences import TOPICS, Finding, findings
from ablate.claims.verdicts import judge
from ablate.study.spec import AugmentSpec


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Frames, Analysis]:
    path = plant(
        tmp_path_factory.mktemp("sentences") / "planted",
        variants=("unet", "noskip", "attention"),
        seeds=4,
        epochs=12,
        images=14,
        truth=Truth(control={"again": "unet"}, missing=(("attention", 1e-3, 3),)),
        measure={"resamples": 400},
    )
    frames = load_results(path)
    return frames, analyse(frames)


@pytest.fixture(scope="module")
def said(study) -> dict[tuple[str, str], Finding]:
    return {(finding.topic, finding.variant): finding for finding in findings(*study)}


def test_every_sentence_has_a_topic_and_no_number_that_is_missing(said):
    for finding in said.values():
        assert finding.topic in TOPICS
        assert finding.text.endswith(".")
        assert not re.search(r"\bnan\b|\binf\b|None", finding.text), finding.text


def test_a_planted_difference_is_said_with_its_interval_n_and_p(study, said):
    row = study[1].contrasts.query("variant == 'noskip' and kind == 'own_best'").iloc[0]
    text = said["quality", "noskip"].text
    assert text.startswith("noskip scores lower than unet: ")
    delta, low, high = (f"{100 * row[name]:+.1f}" for name in ("delta", "low", "high"))
    assert f"{delta} points of test mIoU (95% interval {low} to {high}; n = 4" in text
    assert "each at its own best setting" in text
    assert said["quality", "noskip"].decided


def test_no_difference_is_called_undecided_and_never_none(said):
    for variant in ("attention", "again"):
        finding = said["quality", variant]
        assert finding.text.startswith("Whether ")
        assert "is undecided" in finding.text
        assert not finding.decided
    assert "an A/A copy of unet" in said["quality", "again"].text


def test_unfinished_trials_make_it_provisional(said):
    assert "provisional" in said["quality", "attention"].text
    assert "provisional" not in said["quality", "noskip"].text


def test_where_the_difference_lies_is_said(said):
    assert re.search(r"lower in (pole|fence) \(-\d+\.\d\)", said["classes", "noskip"].text)
    assert "uncorrected" in said["classes", "noskip"].text
    assert said["detail", "noskip"].text.startswith("noskip loses fine detail beyond what it loses elsewhere")
    assert "undecided" in said["detail", "attention"].text


def test_what_the_rate_does_is_said(said):
    assert "rises more than that of unet at" in said["stability", "noskip"].text
    assert "at lr 1e-3 1 of 4 seeds diverged" in said["stability", "noskip"].text
    assert "At no setting" in said["stability", "attention"].text
    for variant in ("unet", "noskip", "attention"):
        assert f"{variant} had not converged when its epochs ended at lr 1e-4" in said["convergence", variant].text


def test_the_cost_is_said_with_its_interval(study, said):
    row = study[1].throughput.query("variant == 'noskip' and quantity == 'train_images_per_s'").iloc[0]
    text = said["cost", "noskip"].text
    assert f"trains at {row['ratio']:.3f} times its speed ({row['low']:.3f} to {row['high']:.3f})" in text
    assert "0.899 times the parameters" in text


def _with(analysis: Analysis, **changes: object) -> Analysis:
    """The analysis with the own-best row of noskip changed."""
    contrasts = analysis.contrasts.copy()
    place = contrasts.index[(contrasts["variant"] == "noskip") & (contrasts["kind"] == "own_best")][0]
    for column, value in changes.items():
        contrasts.loc[place, column] = value
    return replace(analysis, contrasts=contrasts)


def _quality(frames: Frames, analysis: Analysis) -> Finding:
    return next(f for f in findings(frames, analysis) if (f.topic, f.variant) == ("quality", "noskip"))


def test_the_words_follow_the_decision_and_not_the_numbers(study):
    frames, analysis = study
    assert "are equivalent within ±0.5 points" in _quality(frames, _with(analysis, decision="equivalent")).text
    undecided = _quality(frames, _with(analysis, decision="undecided"))
    assert undecided.text.startswith("Whether noskip differs from unet is undecided")
    assert "higher than unet" in _quality(frames, _with(analysis, decision="better")).text
    none = _quality(frames, _with(analysis, low=np.nan, high=np.nan, reason="fewer than two seeds"))
    assert none.text == "noskip cannot be compared with unet: fewer than two seeds."
    assert not none.decided


def test_a_confound_and_an_edge_are_part_of_the_sentence(study):
    frames, analysis = study
    variants = analysis.variants.copy()
    variants.loc[variants["variant"] == "noskip", ["unbracketed", "bracket"]] = [True, "1e-4 is the lowest rate tried"]
    changed = replace(_with(analysis, confounded="noskip: epochs 24", lr_confounded=True), variants=variants)
    text = _quality(frames, changed).text
    assert "training settings differ as well (noskip: epochs 24)" in text
    assert "the optimum of noskip is not bracketed, as 1e-4 is the lowest rate tried" in text
    rate = next(f for f in findings(frames, changed) if (f.topic, f.variant) == ("learning rate", "noskip"))
    assert "confounded with the choice of the rate" in rate.text


def test_what_the_rate_does_to_each_variant_is_said_with_its_numbers(study, said):
    cells = study[1].cells.query("variant == 'unet'").set_index("setting")
    best, worst = cells["regret"].idxmin(), cells["regret"].idxmax()
    text = said["learning rate", "unet"].text
    assert text.startswith(f"By its mean validation mIoU unet is best at {best.replace('=', ' ')}; it has ")
    assert f"{100 * cells['regret'][worst]:.1f} less at {worst.replace('=', ' ')} (points, no test)" in text
    assert not said["learning rate", "unet"].decided


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((-0.031, -0.030, -0.032, -0.029), "where they look matters to it."),
        ((-0.0011, -0.0010, -0.0012, -0.0009), "no difference that counts, as it lies within ±0.5 points."),
        ((-0.03, 0.02, 0.01, -0.01), "that their pattern helps is not shown."),
    ],
)
def test_gates_matter_only_by_more_than_counts_as_a_difference(study, values, words):
    frames, analysis = study
    trials = frames.trials.query("variant == 'attention'").copy()
    trials = trials[trials["setting"] == analysis.own_best["attention"]]
    trials = pd.concat([trials, trials])[: len(values)].assign(key=range(len(values)))
    made = findings(_WithGates(frames, trials, values), analysis)
    assert next(f.text for f in made if (f.topic, f.variant) == ("gates", "attention")).endswith(words)


class _WithGates:
    """Frames whose trials' gates, flattened, did what is said."""

    def __init__(self, frames: Frames, trials: pd.DataFrame, values: Sequence[float]) -> None:
        self.frames, self.values = frames, values
        self.trials, self.source = pd.concat([frames.trials, trials]), self

    def __getattr__(self, name):
        return getattr(self.frames, name)

    def layers(self, key: str | int) -> dict[str, dict[str, list[float]]]:
        return {"gate_ablation": {"all": [self.values[key]]}} if isinstance(key, int) else {}


def test_the_methods_paragraph_says_how_the_numbers_were_made(study):
    text = methods_paragraph(*study)
    for part in (
        "data set street (14 test, 28 train, 14 val images; 24 × 32 pixels; 5 classes)",
        "The baseline unet was compared with noskip (skip: concat → none) and attention (skip: concat → attention)",
        "A/A copies were trained with seeds of their own (again of unet)",
        "12 epochs with adam (batch size 8), a constant learning-rate schedule and the loss cross_entropy",
        "lr in {1e-3, 5e-4, 3e-4, 1e-4}",
        "4 seeds (64 trials; 1 diverged; 1 not yet run)",
        "95% intervals from a two-way bootstrap over seeds and images (Multi-Bootstrap, 400 replicates",
        "The 2 comparisons with the baseline are decided at a family-wise level of 0.05 (Holm)",
        "interleaved over 7 rounds",
        "PyTorch 2.13.0",
    ):
        assert part in text
    assert "nan" not in text


def test_the_methods_paragraph_says_how_images_were_varied_and_at_which_rate(study):
    frames, analysis = study
    assert "; training images were mirrored at random, at each setting" in methods_paragraph(frames, analysis)
    augment = AugmentSpec(flip=False, scale=(0.8, 1.25), contrast=0.2)
    train = frames.study.train.model_copy(update={"augment": augment, "crop": (16, 16), "warmup_epochs": 2, "lr": 2e-3})
    changed = frames.study.model_copy(update={"train": train, "grid": {}})
    text = methods_paragraph(replace(frames, study=changed), analysis)
    assert "2 epochs of linear warm-up" in text and "; at the learning rate 2e-3" in text
    assert "zoomed by 0.8 to 1.25, changed in contrast by up to 20% and cropped at random to 16 × 16 pixels" in text
    plain = train.model_copy(update={"augment": AugmentSpec(flip=False), "crop": None})
    changed = frames.study.model_copy(update={"train": plain})
    assert "training images were not augmented" in methods_paragraph(replace(frames, study=changed), analysis)


def test_the_methods_paragraph_counts_fresh_seeds_a_variant_and_names_the_rates_beyond_the_edge(tmp_path):
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
    text = methods_paragraph(frames, analyse(frames))
    assert "again with 2 fresh seeds each." in text
    assert "lr in {1e-3, 3e-4}, extended for all variants by lr 1e-4 as a best rate lay on its edge." in text


def test_a_study_without_a_result_says_nothing_it_cannot_know(tmp_path):
    missing = tuple((name, 1e-3, seed) for name in ("unet", "noskip") for seed in range(2))
    claim = {"metric": "test/mean_iou", "left": "noskip", "op": "<", "right": "unet"}
    path = plant(
        tmp_path / "x", variants=("unet", "noskip"), lrs=(1e-3,), seeds=2, epochs=6, truth=Truth(missing=missing),
        profile=False, claims=[claim],
    )  # fmt: skip
    frames = load_results(path)
    analysis = analyse(frames)
    assert not any(finding.decided for finding in findings(frames, analysis))
    assert "(4 trials; 4 not yet run)" in methods_paragraph(frames, analysis)
    assert judge(frames, analysis)["verdict"].tolist() == ["inconclusive"]
    assert plan_power(frames).detectable["detectable"].isna().all()
