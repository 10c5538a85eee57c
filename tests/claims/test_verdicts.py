"""Claims: the logic of their trees, and their verdicts on a study in which the truth was planted."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import comb, nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.fine_detail import DETAIL
from ablate.analysis.frames import Frames, load_results
from ablate.analysis.schema import CLAIMS
from ablate.claims.evidence import Evidence, Gatherer
from ablate.claims.verdicts import Node, judge, text_of, verdict_of
from ablate.registry import MEASURES
from ablate.stats.bounded import betting_interval
from ablate.stats.intervals import Estimate, mean_estimate
from ablate.study import claims as metrics
from ablate.study.spec import ClaimSpec
from tests.planted import Truth, plant

Claims = dict[str, tuple[dict[str, Any], str]]
PLANTED: Claims = {
    # what was planted
    "skips": ({"metric": "test/mean_iou", "left": "noskip", "op": "<", "right": "unet", "margin": 0.01}, "supported"),
    "mirrored": ({"metric": "test/mean_iou", "left": "unet", "op": ">", "right": "noskip"}, "supported"),
    "reversed": ({"metric": "test/mean_iou", "left": "noskip", "op": ">", "right": "unet"}, "refuted"),
    "too-much": ({"metric": "test/mean_iou", "left": "noskip", "op": "<", "right": "unet", "margin": 0.2}, "refuted"),
    "factor": ({"metric": "mean_iou", "left": "noskip", "op": "<", "right": "unet", "factor": 0.97}, "supported"),
    "level": ({"metric": "test/mean_iou", "variant": "unet", "op": ">", "value": 0.4}, "supported"),
    "val": ({"metric": "val/mean_iou", "left": "noskip", "op": "<", "right": "unet"}, "supported"),
    "a-class": ({"metric": "iou/pole", "left": "noskip", "op": "<", "right": "unet"}, "supported"),
    "thin": ({"metric": "thin_recall", "left": "noskip", "op": "<", "right": "unet"}, "supported"),
    "unstable": (
        {"metric": "rise", "left": "noskip", "op": ">", "right": "unet", "where": {"lr": ">=5e-4"}},
        "supported",
    ),
    "twice": (
        {"metric": "rise", "left": "noskip", "op": ">", "right": "unet", "factor": 1.2, "where": {"lr": 1e-3}},
        "supported",
    ),
    "stable": ({"metric": "rise", "variant": "unet", "op": "<", "value": 1.5, "where": {"lr": 1e-3}}, "inconclusive"),
    "too-slow": (
        {"metric": "convergence", "variant": "any", "where": {"lr": 1e-4}, "expect": "under-converged"},
        "supported",
    ),
    "all-too-slow": (
        {"metric": "convergence", "variant": "all", "where": {"lr": 1e-4}, "expect": "under-converged"},
        "supported",
    ),
    "none-converged": (
        {"metric": "convergence", "variant": "any", "where": {"lr": 1e-4}, "expect": "converged"},
        "refuted",
    ),
    "speed": (
        {"metric": "train_images_per_s", "left": "attention", "op": ">=", "right": "unet", "factor": 0.9},
        "supported",
    ),
    "too-fast": ({"metric": "train_images_per_s", "left": "attention", "op": ">=", "right": "unet"}, "refuted"),
    "size": ({"metric": "parameters", "left": "noskip", "op": "<", "right": "unet"}, "supported"),
    "diverged": (
        {"metric": "diverged", "variant": "unet", "op": "<=", "value": 0.8, "where": {"lr": 1e-3}},
        "supported",
    ),
    # what the data cannot tell
    "no-effect": ({"metric": "test/mean_iou", "left": "attention", "op": ">", "right": "unet"}, "inconclusive"),
    "control": ({"metric": "test/mean_iou", "left": "again", "op": "<", "right": "unet"}, "inconclusive"),
    "few": (
        {"metric": "diverged", "left": "noskip", "op": ">", "right": "unet", "where": {"lr": 1e-3}},
        "inconclusive",
    ),
}
REFUSED: Claims = {
    "unknown": (
        {"metric": "test/mean_iuo", "left": "noskip", "op": "<", "right": "unet"},
        "expected a metric, got the text 'test/mean_iuo'; did you mean 'test/mean_iou'?",
    ),
    "no-class": ({"metric": "iou/fense", "left": "noskip", "op": "<", "right": "unet"}, "did you mean 'fence'"),
    "rise-margin": (
        {"metric": "rise", "left": "noskip", "op": ">", "right": "unet", "margin": 1.0},
        "expected a factor",
    ),
    "rate-margin": (
        {"metric": "train_images_per_s", "left": "noskip", "op": ">", "right": "unet", "margin": 1.0},
        "expected a factor",
    ),
    "no-verdict": ({"metric": "rise", "variant": "unet", "expect": "stable"}, "has no verdict"),
    "no-such-verdict": ({"metric": "convergence", "variant": "unet", "expect": "done"}, "expected 'under-converged'"),
    "once": ({"metric": "peak_memory_bytes", "left": "noskip", "op": "<", "right": "unet"}, "which is measured once"),
    "nowhere": (
        {"metric": "rise", "left": "noskip", "op": ">", "right": "unet", "where": {"lr": 7e-4}},
        "no setting of the study fulfils",
    ),
    "survivors": (
        {"metric": "test/loss", "left": "noskip", "op": ">", "right": "unet", "where": {"lr": 1e-3}},
        "1 of 4 seeds of noskip has no test_loss (1 of them diverged)",
    ),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Frames, Analysis]:
    claims = [{"id": name, **claim} for name, (claim, _) in (PLANTED | REFUSED).items()]
    path = plant(
        tmp_path_factory.mktemp("claims") / "planted",
        variants=("unet", "noskip", "attention"),
        lrs=(1e-3, 5e-4, 3e-4, 1e-4),
        seeds=4,
        epochs=12,
        images=14,
        truth=Truth(control={"again": "unet"}),
        claims=claims,
        measure={"resamples": 400},
    )
    frames = load_results(path)
    return frames, analyse(frames)


@pytest.fixture(scope="module")
def verdicts(study: tuple[Frames, Analysis]) -> pd.DataFrame:
    return judge(*study).set_index("id")


@pytest.mark.parametrize("name", PLANTED)
def test_planted_truths_come_out_as_planted(verdicts: pd.DataFrame, name: str) -> None:
    row = verdicts.loc[name]
    assert row["verdict"] == PLANTED[name][1], row.to_dict()
    assert row["quantity"] and row["method"]
    if row["verdict"] != "inconclusive":
        assert row["low"] <= row["value"] <= row["high"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_judged_is_inconclusive_and_says_why(verdicts: pd.DataFrame, name: str) -> None:
    row = verdicts.loc[name]
    assert row["verdict"] == "inconclusive"
    assert REFUSED[name][1] in row["reason"]
    assert pd.isna(row["value"])


def test_a_claim_of_the_primary_comparison_has_the_primary_numbers(
    study: tuple[Frames, Analysis], verdicts: pd.DataFrame
) -> None:
    contrasts = study[1].contrasts
    primary = contrasts[(contrasts["variant"] == "noskip") & contrasts["primary"]].iloc[0]
    for column in ("low", "high"):
        assert verdicts.loc["skips", column] == pytest.approx(primary[column])
    assert verdicts.loc["skips", "value"] == pytest.approx(primary["delta"])
    assert verdicts.loc["mirrored", "low"] == pytest.approx(-primary["high"])
    assert verdicts.loc["skips", "threshold"] == -0.01


def test_many_comparisons_are_counted_and_the_deciding_one_named(verdicts: pd.DataFrame) -> None:
    assert verdicts.loc["unstable", "comparisons"] == 2
    assert verdicts.loc["unstable", "at"] in ("noskip and unet at lr=1e-3", "noskip and unet at lr=5e-4")
    any_row, all_row = verdicts.loc["too-slow"], verdicts.loc["all-too-slow"]
    assert any_row["comparisons"] == all_row["comparisons"] == 3  # the A/A control takes no part
    assert any_row["confidence"] == pytest.approx(1 - 0.1 / 3)
    assert all_row["confidence"] == pytest.approx(0.9)
    assert (any_row["quantifiers"], all_row["quantifiers"]) == ("any", "all")
    assert any_row["side"] == "above" and not any_row["exact"]
    assert verdicts.loc["size", "exact"] and verdicts.loc["size", "side"] == "below"


def test_a_study_without_claims_has_an_empty_table(study: tuple[Frames, Analysis]) -> None:
    frames, analysis = study
    bare = replace(frames, study=frames.study.model_copy(update={"claims": []}))
    assert set(judge(bare, analysis).columns) == set(CLAIMS.columns())
    assert not len(judge(bare, analysis))


def test_a_factor_without_a_right_side_is_not_printed(study: tuple[Frames, Analysis]) -> None:
    claim = ClaimSpec(metric="mean_iou", variant="unet", op=">", value=0.1).model_copy(update={"factor": 2.0})
    assert "None" not in Gatherer(*study).gather(claim, "unet", None).quantity


def test_throughput_that_was_not_measured_is_refused(study: tuple[Frames, Analysis]) -> None:
    frames, analysis = study
    claim = ClaimSpec(metric="train_images_per_s", left="attention", op=">=", right="unet", factor=0.9)
    bare = replace(frames, profile={}, study=frames.study.model_copy(update={"claims": [claim]}))
    assert "has not been measured alone" in judge(bare, analysis).iloc[0]["reason"]


def test_counts_are_compared_as_ratios_or_with_a_margin_as_differences(study: tuple[Frames, Analysis]) -> None:
    frames, analysis = study
    counts = analysis.variants.set_index("variant")["parameters"]
    claim = {"metric": "parameters", "left": "noskip", "op": "<=", "right": "unet"}
    forms = [ClaimSpec(**claim, factor=0.9), ClaimSpec(**claim, factor=0.7), ClaimSpec(**claim, margin=1e4)]
    rows = judge(replace(frames, study=frames.study.model_copy(update={"claims": forms})), analysis)
    ratio, difference = counts["noskip"] / counts["unet"], counts["noskip"] - counts["unet"]
    assert rows["value"].tolist() == pytest.approx([ratio, ratio, difference])
    assert rows["threshold"].tolist() == [0.9, 0.7, -1e4]
    assert rows["verdict"].tolist() == ["supported", "refuted", "supported"]


def test_rises_are_compared_run_by_run_and_a_diverged_seed_is_the_largest(study: tuple[Frames, Analysis]) -> None:
    claim = ClaimSpec(metric="rise", left="noskip", op=">", right="unet", where={"lr": 1e-3})
    evidence = Gatherer(*study).gather(claim, "noskip", "lr=1e-3")
    trials = study[0].trials.query("setting == 'lr=1e-3' and role == 'main'")
    left, right = (trials.loc[trials["variant"] == name, "rise"].to_numpy() for name in ("noskip", "unet"))
    assert left.max() == np.inf
    found = evidence.estimate(1)
    assert found.value == np.mean(left[:, None] > right) == 1
    assert found.p == pytest.approx(2 / comb(8, 4))  # the exact test of four against four
    assert evidence.threshold == 0.5
    assert not evidence.estimate(2).has_interval and "permutation p" in evidence.estimate(2).reason


# --- the logic ------------------------------------------------------------------------------------------------------


def leaf(value: float, half: float, *, above: bool = True, threshold: float = 0.0, inclusive: bool = False) -> Evidence:
    """A comparison whose interval is value ± half · k for a k-th of the error."""
    return Evidence(
        "x",
        f"{value:g}",
        lambda k: Estimate(value, value - half * k, value + half * k, n=3),
        above,
        inclusive,
        threshold,
    )


def one(*leaves: Evidence, quantifier: str = "all") -> Node:
    return Node(quantifier, leaves)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "half", "above", "verdict"),
    [
        (1.0, 0.5, True, "supported"),
        (-1.0, 0.5, True, "refuted"),
        (1.0, 1.5, True, "inconclusive"),
        (1.0, 0.5, False, "refuted"),
        (-1.0, 0.5, False, "supported"),
        (1.0, nan, True, "inconclusive"),
    ],
)
def test_one_comparison(value: float, half: float, above: bool, verdict: str) -> None:
    assert verdict_of(one(leaf(value, half, above=above)))[0] == verdict


def test_an_interval_that_touches_the_threshold_is_the_operators_to_read() -> None:
    assert verdict_of(one(leaf(1.0, 1.0)))[0] == "inconclusive"
    assert verdict_of(one(leaf(1.0, 1.0, inclusive=True)))[0] == "supported"
    assert verdict_of(one(leaf(-1.0, 1.0)))[0] == "refuted"
    assert verdict_of(one(leaf(-1.0, 1.0, inclusive=True)))[0] == "inconclusive"


def test_all_is_supported_at_the_full_level_and_hangs_on_the_weakest() -> None:
    verdict, weakest, estimate = verdict_of(one(leaf(1.0, 0.9), leaf(5.0, 0.9)))
    assert verdict == "supported"
    assert weakest.at == "1"
    assert estimate.low == pytest.approx(0.1)


def test_all_is_refuted_by_one_but_at_a_stricter_level() -> None:
    assert verdict_of(one(leaf(1.0, 0.4), leaf(-1.0, 0.4)))[0] == "refuted"
    verdict, nearest, shown = verdict_of(one(leaf(1.0, 0.4), leaf(-1.0, 0.6)))
    assert (verdict, nearest.at) == ("inconclusive", "-1")
    assert shown.high == pytest.approx(0.2)  # at the level that decides; at the full one it seems to have decided


def test_any_is_supported_by_one_at_a_stricter_level_and_refuted_by_all_at_the_full() -> None:
    assert verdict_of(one(leaf(1.0, 0.4), leaf(-1.0, 0.4), quantifier="any"))[0] == "supported"
    assert verdict_of(one(leaf(1.0, 0.6), leaf(-1.0, 0.4), quantifier="any"))[0] == "inconclusive"
    assert verdict_of(one(leaf(-1.0, 0.9), leaf(-2.0, 0.9), quantifier="any"))[0] == "refuted"


@pytest.mark.parametrize(("quantifier", "value"), [("all", 1.0), ("any", -1.0)])
def test_what_keeps_a_claim_open_is_shown_and_no_interval_that_seems_to_have_decided(
    quantifier: str, value: float
) -> None:
    for parts in ([leaf(value, 0.4), leaf(value, nan)], [leaf(value, nan), leaf(value, 0.4)]):
        verdict, _, shown = verdict_of(one(*parts, quantifier=quantifier))
        assert (verdict, shown.has_interval) == ("inconclusive", False)


def test_nested_some_variant_at_every_setting() -> None:
    tree = Node("any", (one(leaf(2.0, 0.9), leaf(3.0, 0.9)), one(leaf(-1.0, 0.1), leaf(9.0, 0.1))))
    verdict, deciding, estimate = verdict_of(tree)
    assert (verdict, deciding.at) == ("supported", "2")
    assert estimate.low == pytest.approx(2.0 - 2 * 0.9)  # two variants to choose from


def divided(values: np.ndarray, k: int) -> Estimate:
    return mean_estimate(values, 1 - 0.05 / k)


def test_a_false_any_is_supported_no_more_often_than_one_interval_errs() -> None:
    """Four comparisons with no difference at all, 95 % intervals: 2.5 % false support at most."""
    rng = np.random.default_rng(0)
    draws, wrong = 1500, 0
    for values in rng.normal(0, 1, (draws, 4, 4)):
        leaves = [Evidence("x", "x", partial(divided, v), True, False, 0.0) for v in values]
        wrong += verdict_of(one(*leaves, quantifier="any"))[0] == "supported"
    assert wrong / draws <= 0.025 + 3 * sqrt(0.025 * 0.975 / draws)
    assert wrong / draws >= 0.01


def test_a_quiet_study_does_not_refute_instability_by_three_seeds(tmp_path: Path) -> None:
    claim = {"metric": "rise", "variant": "any", "op": ">", "value": 1.1, "where": {"lr": ">=5e-4"}}
    path = plant(tmp_path / "p", variants=("unet",), lrs=(5e-4,), images=2, epochs=6, claims=[claim], predictions=False)
    for steps in path.glob("trials/*/steps.f32"):
        falling = np.linspace(2, 1, len(steps.read_bytes()) // 8, dtype="<f4")
        steps.write_bytes(np.stack([falling, falling], axis=1).tobytes())
    frames = load_results(path)
    row = judge(frames, analyse(frames)).iloc[0]
    assert (row["verdict"], row["value"], row["high"]) == ("inconclusive", 0, betting_interval(np.zeros(3))[2])
    assert "at least 44 such seeds would tell" in row["reason"]


def test_what_has_not_run_yet_decides_nothing_and_hinders_nothing(tmp_path: Path) -> None:
    rise = {"metric": "rise", "op": ">", "value": 1.1}
    forms = {
        "some-rises": {**rise, "variant": "any", "where": {"lr": ">=5e-4"}, "quantifier": "any"},
        "of-it": {**rise, "variant": "residual", "where": {"lr": ">=5e-4"}},
        "all-low": {"metric": "test/mean_iou", "variant": "all", "op": ">", "value": 0.01},
        "all-high": {"metric": "test/mean_iou", "variant": "all", "op": ">", "value": 0.99},
    }
    rates, seeds = (1e-3, 5e-4), 4
    gone = tuple(("residual", lr, seed) for lr in rates for seed in range(seeds))
    truth = Truth(missing=gone, diverged=(), unstable_from={"noskip": 1e-4})
    path = plant(
        tmp_path / "p", variants=("unet", "noskip", "residual"), lrs=rates, seeds=seeds, images=4, epochs=12,
        truth=truth, claims=[{"id": name, **form} for name, form in forms.items()], predictions=False,
    )  # fmt: skip
    frames = load_results(path)
    rows = judge(frames, analyse(frames)).set_index("id")
    # The number of comparisons to choose from is that of the plan, so that the level does not depend on what is done.
    some = rows.loc["some-rises"]
    assert (some["verdict"], some["comparisons"]) == ("supported", 6) and "noskip" in some["at"]
    assert some["confidence"] == pytest.approx(1 - 0.05 / 6)
    everyone = rows.loc["all-low"]
    assert everyone["verdict"] == "inconclusive" and pd.isna(everyone["value"])
    assert everyone["reason"].startswith("residual has no setting that may be chosen")
    assert rows.loc["all-high", "verdict"] == "refuted"
    assert (rows.loc["of-it", "verdict"], rows.loc["of-it", "comparisons"]) == ("inconclusive", 0)


def test_the_metrics_of_claims_are_those_of_the_frames(study: tuple[Frames, Analysis]) -> None:
    frames, _ = study
    numbers = set(frames.trials.select_dtypes("number").columns)
    assert set(metrics.of_trials()) <= numbers
    assert set(metrics.DETAIL.values()) == set(DETAIL)
    assert set(MEASURES) <= set(metrics.of_trials())
    # What is left out is what a trial was given, not what came of it, or has another name.
    known = {"seed", "lr", "parameters", "steps_per_epoch", "epochs_run", "wall_s", "val_score", "test_score"}
    known |= {"diverged_epoch", "diverged_step"}
    known |= {f"{split}_{name}" for split in ("val", "test") for name in metrics.OVERLAP}
    assert numbers - set(metrics.of_trials()) <= known


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        (PLANTED["skips"][0], "test/mean_iou: noskip < unet by at least 0.01, each at its own best setting"),
        (PLANTED["unstable"][0], "rise: noskip > unet, at every setting with lr >= 5e-4"),
        (PLANTED["too-slow"][0], "convergence: some variant is under-converged, at lr = 1e-4"),
        (PLANTED["speed"][0], "train_images_per_s: attention >= 0.9 × unet, measured alone"),
        (PLANTED["level"][0], "test/mean_iou: unet > 0.4, at its own best setting"),
    ],
)
def test_a_claim_in_words(claim: dict[str, Any], text: str) -> None:
    assert text_of(ClaimSpec(**claim)) == text


def test_a_claim_about_scores_rests_on_the_fresh_seeds_of_the_primary_decision(tmp_path: Path) -> None:
    fewer: dict[str, Any] = {"metric": "test/mean_iou", "left": "noskip", "op": "<", "right": "unet"}
    claims: list[dict[str, Any]] = [
        {"id": "fewer", **fewer},
        {"id": "level", "metric": "test/mean_iou", "variant": "unet", "op": ">", "value": 0.3},
        {"id": "at-a-rate", **fewer, "where": {"lr": 3e-4}},
    ]
    path = plant(
        tmp_path / "p", variants=("unet", "noskip"), lrs=(1e-3, 3e-4), seeds=1, confirm=4, images=8, epochs=6,
        claims=claims, predictions=False,
    )  # fmt: skip
    frames = load_results(path)
    analysis = analyse(frames)
    rows = judge(frames, analysis).set_index("id")
    primary = analysis.contrasts.query("primary").iloc[0]
    assert rows["at"]["fewer"] == "noskip and unet at lr=3e-4, fresh seeds"
    for column, of_contrast in (("value", "delta"), ("low", "low"), ("high", "high")):
        assert rows[column]["fewer"] == pytest.approx(primary[of_contrast], abs=1e-12)
    assert set(rows["verdict"]) == {"supported"}
    assert set(rows["n"]) == {4}  # also at the rate that was chosen
