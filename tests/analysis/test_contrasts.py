"""Contrasts: planted differences come out as planted, and an A/A copy differs at the nominal rate."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.contrasts import contrasts_frame, ways
from ablate.analysis.frames import Frames, load_results
from ablate.analysis.scores import StudyScores
from tests.planted import Truth, plant
from tests.planted_counts import draw_study
from tests.planted_pixels import mean_iou


def primary(frames: Frames) -> pd.DataFrame:
    scores = StudyScores(frames)
    return contrasts_frame(scores, ways(scores)[:1]).set_index("variant")


@pytest.fixture(scope="module")
def own_best(planted_analysis: Analysis) -> pd.DataFrame:
    return planted_analysis.contrasts.query("primary").set_index("variant")


def test_planted_differences_lie_in_their_intervals_and_are_decided(own_best: pd.DataFrame) -> None:
    for variant, delta in {"noskip": -0.06, "residual": 0.03, "attention": 0.0, "unet-again": 0.0}.items():
        assert own_best["low"][variant] < delta < own_best["high"][variant]
    assert own_best["decision"].to_dict() == {
        "noskip": "worse",
        "residual": "better",
        "attention": "undecided",
        "unet-again": "undecided",
    }
    assert own_best["setting"].eq("lr=3e-4").all()


def test_delta_is_the_difference_of_mean_test_scores(planted_analysis: Analysis, own_best: pd.DataFrame) -> None:
    t: Any = planted_analysis.cells.set_index(["variant", "setting"])["test_mean"]
    for variant, row in own_best.iterrows():
        difference = t[variant, row["setting"]] - t["unet", row["against_setting"]]
        assert row["delta"] == pytest.approx(difference, abs=1e-12)
        assert row["left"] - row["right"] == pytest.approx(row["delta"], abs=1e-12)


def test_every_way_is_there_and_one_is_primary(planted_analysis: Analysis) -> None:
    contrasts = planted_analysis.contrasts
    kinds = contrasts.groupby("kind")["variant"].count().to_dict()
    assert kinds == {"own_best": 4, "shared": 4, "matched": 16}
    assert contrasts["primary"].equals(contrasts["kind"] == "own_best")
    bars = contrasts.groupby("kind")["error_bar"].unique().map(list).to_dict()
    assert bars == {"own_best": ["retune"], "shared": ["fixed"], "matched": ["fixed"]}


def test_a_pending_trial_makes_a_contrast_provisional(planted_analysis: Analysis) -> None:
    contrasts = planted_analysis.contrasts.set_index(["kind", "variant", "setting"])["provisional"]
    assert contrasts["own_best", "residual", "lr=3e-4"]  # its rate was chosen without a seed of another
    assert not contrasts["matched", "residual", "lr=3e-4"]
    assert contrasts["matched", "residual", "lr=1e-3"]
    assert not contrasts["own_best", "noskip", "lr=3e-4"]


def test_holm_is_over_the_variants_and_a_control_is_judged_by_itself(own_best: pd.DataFrame) -> None:
    p = own_best["p"]
    ordered = p[["noskip", "residual", "attention"]].sort_values()
    expected = np.maximum.accumulate(np.minimum(1, ordered.to_numpy() * [3, 2, 1]))
    assert own_best["p_holm"][ordered.index].tolist() == pytest.approx(expected.tolist())
    assert own_best["p_holm"]["unet-again"] == p["unet-again"]
    assert own_best["control"].to_dict()["unet-again"]


def test_a_control_is_compared_with_what_it_copies(tmp_path: Path) -> None:
    truth = Truth(control={"residual-again": "residual"})
    path = plant(
        tmp_path / "p", variants=("unet", "residual"), lrs=(3e-4,), images=8, epochs=6, truth=truth, predictions=False
    )
    rows = analyse(load_results(path)).contrasts.query("primary").set_index("variant")
    assert rows["against"].to_dict() == {"residual": "unet", "residual-again": "residual"}
    assert rows["decision"].to_dict() == {"residual": "better", "residual-again": "undecided"}
    assert abs(rows["delta"]["residual-again"]) < 0.02


def test_a_rate_that_decides_the_contrast_is_called_a_confound(tmp_path: Path) -> None:
    truth = Truth(optimum={"noskip": 1e-3}, delta={"noskip": 0.03}, unstable_from={}, diverged=())
    path = plant(
        tmp_path / "p", lrs=(3e-3, 1e-3, 3e-4, 1e-4), seeds=4, images=12, epochs=6, truth=truth, predictions=False
    )
    analysis = analyse(load_results(path))
    rows = analysis.contrasts.set_index(["kind", "variant"])
    assert analysis.shared_setting == "lr=3e-4"
    assert rows["decision"]["shared", "noskip"] == "worse"
    assert rows["decision"]["own_best", "noskip"] == "better"
    assert rows["setting"]["own_best", "noskip"] == "lr=1e-3"
    flags = rows["lr_confounded"]
    assert flags["own_best", "noskip"]
    assert flags.sum() == 1


def test_a_variant_that_is_worse_at_the_shared_rate_only_is_called_confounded() -> None:
    # Equal at own best, and about ten points apart at the rate that suits the baseline; both decisions may be open.
    odds = {"a": [-1.5, 0.0, -0.6], "b": [0.0, -0.6, -1.5], "c": [-1.5, 0.0, -0.6]}
    flagged, falsely = 0, 0
    for draw in range(20):
        frames = draw_study(np.random.default_rng(draw), effects=odds, seeds=3, images=20, resamples=200)
        scores = StudyScores(frames)
        rows = contrasts_frame(scores, ways(scores)[:2]).query("kind == 'own_best'").set_index("variant")
        flagged += int(rows["lr_confounded"]["b"])
        falsely += int(rows["lr_confounded"]["c"])
    assert flagged >= 15, flagged
    assert falsely <= 2, falsely
    assert rows["interaction"]["b"] == pytest.approx(0.1, abs=0.05)


def test_equal_variants_are_seldom_called_confounded() -> None:
    # Three rates that are alike: the choice is luck, and so is the difference between the two ways to choose.
    effects = {f"v{number}": [0.0, 0.0, 0.0] for number in range(4)}
    wrong = 0
    for draw in range(25):
        frames = draw_study(np.random.default_rng(draw), effects=effects, seeds=3, images=15, resamples=150)
        scores = StudyScores(frames)
        wrong += bool(contrasts_frame(scores, ways(scores)[:2])["lr_confounded"].any())
    assert stats.binomtest(wrong, 25, 0.05, alternative="greater").pvalue > 0.05, wrong


def test_an_edge_of_the_grid_is_said(tmp_path: Path) -> None:
    path = plant(
        tmp_path / "p",
        variants=("unet", "residual"),
        lrs=(1e-3, 5e-4, 3e-4),
        seeds=2,
        images=4,
        epochs=6,
        truth=Truth(optimum={"residual": 3e-3}),
        predictions=False,
    )
    analysis = analyse(load_results(path))
    assert analysis.contrasts.query("primary")["unbracketed"].all()
    assert analysis.variants["bracket"].tolist() == ["3e-4 is the lowest rate tried", "1e-3 is the highest rate tried"]
    assert not analysis.contrasts.query("kind == 'matched'")["unbracketed"].any()


def test_one_seed_gives_a_difference_without_an_interval(tmp_path: Path) -> None:
    path = plant(tmp_path / "p", variants=("unet", "noskip"), seeds=1, images=4, epochs=6, predictions=False)
    row = analyse(load_results(path)).contrasts.query("primary").iloc[0]
    assert row["delta"] < -0.03
    assert math.isnan(row["low"]) and math.isnan(row["p_holm"])
    assert (row["decision"], row["reason"]) == ("undecided", "fewer than two seeds")


def test_a_variant_that_always_diverges_scores_zero_and_is_worse(tmp_path: Path) -> None:
    truth = Truth(diverges_from={"noskip": 1e-5}, diverged=())
    path = plant(tmp_path / "p", variants=("unet", "noskip"), images=4, epochs=6, truth=truth, predictions=False)
    analysis = analyse(load_results(path))
    row = analysis.contrasts.query("primary").iloc[0]
    assert row["left"] == 0.0
    assert row["delta"] == pytest.approx(-row["right"])
    assert row["decision"] == "worse"
    assert analysis.variants["bracket"].iloc[1] == "every seed diverged at every setting"


def test_a_variant_without_results_has_no_contrast(tmp_path: Path) -> None:
    missing = tuple(("noskip", lr, seed) for lr in (1e-3, 3e-4) for seed in range(2))
    path = plant(
        tmp_path / "p",
        variants=("unet", "noskip", "residual"),
        lrs=(1e-3, 3e-4),
        seeds=2,
        images=8,
        epochs=6,
        truth=Truth(missing=missing, diverged=()),
        predictions=False,
    )
    rows = analyse(load_results(path)).contrasts.query("primary").set_index("variant")
    assert math.isnan(rows["delta"]["noskip"])
    assert rows["reason"]["noskip"] == "no result of noskip to choose from"
    # The planned contrast stays in Holm's family: leaving it out afterwards would loosen the others.
    assert rows["p_holm"]["residual"] == pytest.approx(2 * rows["p"]["residual"])


def test_confirming_seeds_are_a_way_of_their_own(tmp_path: Path) -> None:
    path = plant(
        tmp_path / "p",
        variants=("unet", "noskip"),
        lrs=(1e-3, 3e-4),
        images=8,
        epochs=6,
        confirm=3,
        predictions=False,
    )
    frames = load_results(path)
    row = analyse(frames).contrasts.query("kind == 'confirmed'").iloc[0]
    confirming = frames.trials.query("role == 'confirm'").groupby("variant")["test_score"].mean()
    assert row["delta"] == pytest.approx(confirming["noskip"] - confirming["unet"])
    assert (row["error_bar"], row["n"], row["decision"], row["primary"]) == ("tune_once", 3, "worse", True)
    assert analyse(frames).contrasts.groupby("kind")["primary"].all().to_dict() == {
        "confirmed": True, "matched": False, "own_best": False, "shared": False,
    }  # fmt: skip
    assert (analyse(frames).contrasts["fresh"] == (analyse(frames).contrasts["kind"] == "confirmed")).all()
    assert not set(frames.trials.query("role == 'confirm'")["seed"]) & {0, 1, 2}


def test_images_of_a_sequence_are_drawn_in_blocks(tmp_path: Path) -> None:
    path = plant(
        tmp_path / "p", variants=("unet", "noskip"), lrs=(3e-4,), images=40, epochs=6, groups=2, predictions=False
    )
    frames = load_results(path)
    assert len(set(frames.groups["test"] or ())) == 2
    weights = StudyScores(frames).bootstrap.test_weights
    assert weights[:, :20].sum(axis=1).tolist() == [20] * 2000  # each sequence keeps its own size


def test_declared_confounds_are_shown(tmp_path: Path) -> None:
    path = plant(tmp_path / "p", variants=("unet", "noskip"), lrs=(3e-4,), images=2, epochs=6, predictions=False)
    study = (path / "study.yaml").read_text()
    (path / "study.yaml").write_text(study.replace("    skip: none\n", "    skip: none\n    train: {batch_size: 4}\n"))
    analysis = analyse(load_results(path))
    assert analysis.contrasts["confounded"].eq("noskip: batch_size 4").all()
    assert analysis.variants.set_index("variant")["confounds"].to_dict() == {
        "unet": "", "noskip": "noskip: batch_size 4",
    }  # fmt: skip
    assert analysis.contrasts["parameters_ratio"].iloc[0] == pytest.approx(437 / 486)


def test_superiority_is_the_share_of_pairs(planted_analysis: Analysis, own_best: pd.DataFrame) -> None:
    scores = planted_analysis.frames.trials.query("lr == 3e-4").groupby("variant")["test_score"].apply(list)
    pairs = [a > b for a in scores["attention"] for b in scores["unet"]]
    assert own_best["superiority"]["attention"] == pytest.approx(np.mean(pairs))
    assert own_best["superiority_verdict"].eq("").all()  # three seeds allow none


def test_class_contrasts_average_to_the_contrast(planted_analysis: Analysis, own_best: pd.DataFrame) -> None:
    classes = planted_analysis.class_contrasts
    assert len(classes) == 4 * 5
    for variant, part in classes.groupby("variant"):
        assert part["delta"].mean() == pytest.approx(own_best["delta"][variant], abs=1e-12)
    noskip = classes.query("variant == 'noskip'").set_index("class")
    assert (noskip["high"][["fence", "pole"]] < 0).all()
    assert noskip["delta"][["fence", "pole"]].max() < noskip["delta"]["road"]


def test_the_same_study_gives_the_same_numbers(planted_path: Path, planted_analysis: Analysis) -> None:
    again = analyse(load_results(planted_path))
    assert again is not planted_analysis
    pd.testing.assert_frame_equal(again.contrasts, planted_analysis.contrasts)


def test_another_variant_does_not_move_a_contrast(tmp_path: Path, planted_path: Path) -> None:
    alone = load_results(planted_path)
    rows = primary(alone)
    run = json.loads((planted_path / "run.json").read_text())
    kept = [entry for entry in run["plan"] if entry["variant"] in ("unet", "residual")]
    for name in ("study.yaml", "trials", "test"):
        (tmp_path / name).symlink_to(planted_path / name)
    (tmp_path / "run.json").write_text(json.dumps(run | {"plan": kept}))
    fewer = primary(load_results(tmp_path))
    for column in ("delta", "low", "high", "p"):
        assert fewer[column]["residual"] == rows[column]["residual"]


def test_identical_variants_differ_at_the_nominal_rate() -> None:
    pairs, wrong = 0, 0
    for draw in range(5):
        effects = {f"v{number}": [0.0] for number in range(40)} | {f"c{number}": [0.0] for number in range(40)}
        copies = {f"c{number}": f"v{number}" for number in range(40)}
        frames = draw_study(
            np.random.default_rng(draw), effects=effects, copies=copies, lrs=(3e-4,), seeds=3, resamples=200
        )
        rows = primary(frames).query("control")
        assert (rows["against"].str[1:] == rows.index.str[1:]).all()
        pairs += len(rows)
        wrong += int(rows["decision"].isin(["better", "worse"]).sum())
    assert pairs == 200
    assert stats.binomtest(wrong, pairs, 0.05).pvalue > 0.05, f"{wrong} of {pairs}"


def test_choosing_among_equal_rates_raises_no_false_alarms() -> None:
    effects = {f"v{number}": [0.0, 0.0, 0.0] for number in range(30)}
    effects |= {f"c{number}": [0.0, 0.0, 0.0] for number in range(30)}
    copies = {f"c{number}": f"v{number}" for number in range(30)}
    wrong = 0
    for draw in range(2):
        frames = draw_study(np.random.default_rng(draw), effects=effects, copies=copies, seeds=3, resamples=200)
        wrong += int(primary(frames).query("control")["decision"].isin(["better", "worse"]).sum())
    # Noise of the choice is in the interval, so that it covers more than it must: at most the nominal rate.
    assert stats.binomtest(wrong, 60, 0.05, alternative="greater").pvalue > 0.05


def test_a_known_difference_is_found_and_covered() -> None:
    large = draw_study(
        np.random.default_rng(99), effects={"a": [0.0], "b": [0.3]}, lrs=(3e-4,), seeds=40, images=1000, resamples=100
    )
    population = large.trials.groupby("variant")["test_score"].mean()
    truth = float(population["b"] - population["a"])
    effects = {"a": [0.0]} | {f"b{number}": [0.3] for number in range(30)}
    covered, decided = [], []
    for draw in range(4):
        frames = draw_study(np.random.default_rng(draw), effects=effects, lrs=(3e-4,), seeds=5, images=60)
        rows = primary(frames)
        covered.append(((rows["low"] < truth) & (truth < rows["high"])).mean())
        decided.append(rows["decision"].eq("better").mean())
    assert np.mean(covered) > 0.88
    assert np.mean(decided) > 0.9


def test_a_diverged_seed_is_zero_in_every_replicate() -> None:
    frames = draw_study(
        np.random.default_rng(0),
        effects={"a": [0.0], "b": [0.0]},
        lrs=(3e-4,),
        seeds=4,
        diverged=[("b", 3e-4, 2)],
    )
    row = primary(frames).loc["b"]
    scores = frames.trials.groupby("variant")["test_score"].apply(list)
    assert row["right"] - row["left"] == pytest.approx(np.mean(scores["a"]) - np.sum(scores["b"]) / 4)
    # One of four seeds at zero: SD of a replicate's mean is about score·√(3/16/4), so the interval is wide.
    # Nearly all the spread is that of one side, whose 3 degrees of freedom are those of the interval.
    expected = stats.t.ppf(0.975, 3) * np.mean(scores["a"]) * math.sqrt(3 / 16 / 4) * math.sqrt(4 / 3)
    assert (row["high"] - row["low"]) / 2 == pytest.approx(expected, rel=0.15)


def rate_of_errors(draws: int, **settings: Any) -> tuple[int, pd.DataFrame]:
    """How many of so many studies of equal variants decide that any two differ, and the contrasts of the last."""
    wrong = 0
    for draw in range(draws):
        frames = draw_study(np.random.default_rng(draw), lrs=(3e-4,), resamples=150, **settings)
        rows = primary(frames)
        wrong += bool(rows["decision"].isin(["better", "worse"]).any())
    return wrong, rows


def test_long_groups_are_drawn_whole_and_the_level_holds() -> None:
    # 12 clips of 12 images: what one variant finds hard in a clip it finds hard in all of its images.
    groups = [f"clip{image // 12:02d}" for image in range(144)]
    wrong, rows = rate_of_errors(
        60, effects={"a": [0.0], "b": [0.0]}, seeds=3, images=144, groups=groups, seed_sd=0.01, interaction_sd=0.02,
        image_sd=0.1, variant_sd=0.4,
    )  # fmt: skip
    assert tuple(rows.loc["b", ["images_drawn", "groups", "conditional"]]) == ("groups", 12, False)
    assert stats.binomtest(wrong, 60, 0.05, alternative="greater").pvalue > 0.05, wrong


def test_few_groups_are_conditional_and_cost_degrees_of_freedom() -> None:
    groups = [f"clip{image // 20}" for image in range(60)]
    frames = draw_study(
        np.random.default_rng(0), effects={"a": [0.0], "b": [0.0]}, lrs=(3e-4,), seeds=6, images=60, groups=groups,
        seed_sd=0.01, variant_sd=0.5,
    )  # fmt: skip
    row = primary(frames).loc["b"]
    assert (row["images_drawn"], row["groups"], row["conditional"]) == ("blocks", 3, True)
    assert 1 <= row["block"] <= 24
    assert StudyScores(frames).cell("b", "lr=3e-4").image_df == 2
    fixed = frames.study.model_copy(update={"measure": frames.study.measure.model_copy(update={"block": 7})})
    assert primary(dataclasses.replace(frames, study=fixed))["block"]["b"] == 7


def test_undeclared_sequences_are_warned_of() -> None:
    settings: Any = {"effects": {"a": [0.0], "b": [0.0]}, "lrs": (3e-4,), "seeds": 2, "images": 80, "variant_sd": 0.5}
    groups = [f"clip{image // 8:02d}" for image in range(80)]
    frames = draw_study(np.random.default_rng(0), groups=groups, **settings)
    hidden = dataclasses.replace(frames, groups={"val": None, "test": None})
    assert primary(hidden)["order_warning"]["b"] and primary(hidden)["order_correlation"]["b"] > 0.3
    assert not primary(frames)["order_warning"]["b"]
    assert not primary(draw_study(np.random.default_rng(0), **settings))["order_warning"]["b"]


def test_spreads_that_differ_keep_the_level() -> None:
    # The baseline's seeds spread a tenth of the others': by pooled degrees of freedom a fifth of such studies err.
    names = [f"v{number}" for number in range(8)]
    wrong, rows = rate_of_errors(
        60, effects={"a": [0.0]} | {name: [0.0] for name in names}, seeds=6, images=12, seed_sd=0.4,
        spreads={"a": 0.04}, image_sd=0.1, interaction_sd=0.01,
    )  # fmt: skip
    assert rows["df"].median() < 7  # those of the wide side, not 2(n − 1) = 10
    assert stats.binomtest(wrong, 60, 0.06, alternative="greater").pvalue > 0.05, wrong


def test_a_constant_prediction_is_called_untrained() -> None:
    frames = draw_study(np.random.default_rng(0), effects={"a": [0.0], "b": [0.0], "c": [0.0]}, lrs=(3e-4,), seeds=3)
    scores = StudyScores(frames)
    for seed in range(3):
        for counts in frames.counts(f"b/0.0003/{seed}").values():
            pixels = counts[..., 0] + counts[..., 2]
            everything = np.zeros_like(counts)
            everything[..., 2] = pixels
            everything[:, 0] = np.stack([pixels[:, 0], pixels[:, 1:].sum(1), 0 * pixels[:, 0]], axis=-1)
            counts[:] = everything
    keys = frames.trials["key"].tolist()
    reached = [float(mean_iou(frames.counts(key)["test"].sum(0))) for key in keys]
    frames = dataclasses.replace(frames, trials=frames.trials.assign(test_score=reached))
    rows = primary(frames)
    assert rows["untrained"].to_dict() == {"b": True, "c": False}
    # Five classes, of which the first has the most pixels; class frequencies score more than one class alone.
    share = frames.counts(keys[0])["test"][..., [0, 2]].sum((0, 2)) / (600 * 40)
    assert rows["blind_score"].eq(max(share.max() / 5, (share / (2 - share)).mean())).all()
    assert scores.blind_score == pytest.approx(rows["blind_score"]["b"])


def test_an_undecided_contrast_says_what_it_could_have_found() -> None:
    settings: Any = {"lrs": (3e-4,), "seeds": 4, "image_sd": 0.1, "interaction_sd": 0.02, "images": 20}
    rows = primary(draw_study(np.random.default_rng(0), effects={"a": [0.0], "b": [0.04], "c": [1.5]}, **settings))
    assert rows["decision"].to_dict() == {"b": "undecided", "c": "better"}
    assert math.isnan(rows["detectable"]["c"]) and math.isnan(rows["seeds_needed"]["c"])
    # Four seeds a side whose SD is σ find about 4.3 · σ · √(2/4) at 0.025; the seeds for less go by its square.
    row = rows.loc["b"]
    assert row["detectable"] == pytest.approx(4.3 * row["se"], rel=0.15)
    expected = (stats.norm.ppf(0.9875) + stats.norm.ppf(0.8)) ** 2 * 4 * (row["se"] / row["delta"]) ** 2
    assert row["seeds_needed"] == pytest.approx(expected, rel=0.25, abs=2)


def test_the_detectable_difference_is_found_four_times_in_five() -> None:
    settings: Any = {"lrs": (3e-4,), "seeds": 6, "image_sd": 0.1, "interaction_sd": 0.02, "images": 20, "seed_sd": 0.1}
    known = [
        primary(draw_study(np.random.default_rng(draw), effects={"a": [0.0], "b": [0.0]}, **settings))
        for draw in range(30)
    ]
    reach = float(np.median(pd.concat(known)["detectable"].dropna()))
    large = draw_study(
        np.random.default_rng(99), effects={"a": [0.0], "b": [0.1]}, **settings | {"seeds": 60, "resamples": 100}
    )
    slope = float(large.trials.groupby("variant")["test_score"].mean().diff()["b"]) / 0.1
    found = [
        primary(draw_study(np.random.default_rng(draw), effects={"a": [0.0], "b": [reach / slope]}, **settings))
        for draw in range(100, 160)
    ]
    assert np.mean([rows["decision"]["b"] == "better" for rows in found]) == pytest.approx(0.8, abs=0.16)
