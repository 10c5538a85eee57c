"""Figures of what is decided, how firmly, and what more training would bring: numbers and marks that say the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.analysis.frames import Frames
from ablate.measure.convergence import late_epochs
from ablate.registry import FIGURES
from ablate.report.figures.curves import outlook
from ablate.report.figures.forest import rank_shares
from ablate.report.figures.inside import gradients
from ablate.report.figures.theme import PAPER, theme
from ablate.report.lookup import NotDrawn, primary_contrasts
from ablate.stats.saturation import projected_gain
from tests.report.conftest import Analysed


def drawn(name: str, analysis: Analysis) -> Figure:
    with theme():
        figure: Figure = FIGURES.get(name)(analysis)
    return figure


def with_frame(analysis: Analysis, name: str, frame: pd.DataFrame) -> Analysis:
    """Return the analysis with a frame that not every version of it has."""
    changed = replace(analysis)
    object.__setattr__(changed, name, frame)
    return changed


def test_a_row_of_the_forest_prints_estimate_interval_and_verdict(twelve: Path, analysed: Analysed) -> None:
    analysis = analysed(twelve)
    figure = drawn("contrasts", analysis)
    texts = [text.get_text() for text in figure.axes[0].texts]
    primary = primary_contrasts(analysis)
    assert len(texts) == 2 * len(primary) + 2
    for row in primary.to_dict("records"):
        ends = [f"{100 * row[key]:+.1f}".replace("-", "−") for key in ("delta", "low", "high")]
        number = f"{ends[0]} [{ends[1]}, {ends[2]}]".replace("+0.0", "0.0").replace("−0.0", "0.0")
        assert number in texts
        assert any(text.startswith(f"{row['decision']}, p ") for text in texts)
    assert "95 % interval: seeds, images and the choosing of the rate" in figure.axes[0].get_xlabel()


@pytest.mark.parametrize(("changes", "word", "filled"), [
    ({"decision": "better", "untrained": False}, "better", True),
    ({"decision": "undecided", "untrained": False}, "undecided", False),
    ({"decision": "better", "untrained": True}, "untrained", False),
])  # fmt: skip
def test_a_mark_is_filled_where_something_is_decided(
    changes: dict[str, Any], word: str, filled: bool, two: Path, analysed: Analysed
) -> None:
    analysis = analysed(two)
    figure = drawn("contrasts", replace(analysis, contrasts=analysis.contrasts.assign(**changes)))
    axes = figure.axes[0]
    (mark,) = [line for line in axes.get_lines() if line.get_marker() == "s"]
    assert same_color(mark.get_markerfacecolor(), PAPER) is not filled
    assert any(text.get_text().startswith(word) for text in axes.texts)


def test_ranks_are_those_of_the_replicates_that_decide(twelve: Path, analysed: Analysed) -> None:
    analysis = analysed(twelve)
    shares = rank_shares(analysis)
    assert set(shares.index) == set(analysis.variants_in_order)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    # The variant that loses most is last most often, and by the same replicates its loss is decided or nearly so.
    assert shares[12].idxmax() == "noskip"
    draws = {v: analysis.scores.own_best(v, analysis.baseline)[0].draws for v in shares.index[1:]}
    below = np.stack([np.zeros_like(draws["noskip"]), *draws.values()])
    last = (draws["noskip"] <= below).all(axis=0).mean()
    assert shares.loc["noskip", 12] == pytest.approx(float(last))


def test_an_order_of_two_is_no_figure_of_its_own(two: Path, analysed: Analysed) -> None:
    with pytest.raises(NotDrawn, match="three variants"):
        drawn("ranks", analysed(two))


def test_a_projected_path_bends_and_ends_at_the_gain() -> None:
    epochs = np.arange(1, 31)
    curves = np.stack([0.6 * (1 - np.exp(-epochs / 12)) + shift for shift in (0.0, 0.01, 0.02)])
    seen = outlook(curves)
    gain, low, high, decay = projected_gain(curves, late_epochs(30))
    assert decay < 1
    assert (seen.verdict.gain, seen.verdict.low, seen.verdict.high) == (gain, low, high)
    assert seen.path[0] == pytest.approx(curves[:, -1].mean())
    assert seen.path[-1] - seen.path[0] == pytest.approx(gain)
    assert len(seen.path) == late_epochs(30) + 1
    assert (np.diff(seen.path, 2) < 0).all()


def test_converged_variants_are_a_sentence(two: Path, analysed: Analysed) -> None:
    with pytest.raises(NotDrawn, match=r"no variant has 0\.5 points of validation mIoU to gain"):
        drawn("projection", analysed(two))


def interaction(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"factor_a": "skip", "factor_b": "block", "level_a0": "concat", "level_a1": "none"}
    row |= {"level_b0": "plain", "level_b1": "residual", "estimate": 0.05, "low": 0.01, "high": 0.09}
    row |= {"p": 0.01, "p_holm": 0.02, "decision": "synergistic"}
    for cell, mean in {"00": 0.5, "01": 0.55, "10": 0.3, "11": 0.4}.items():
        row |= {f"mean_{cell}": mean, f"mean_{cell}_low": mean - 0.03, f"mean_{cell}_high": mean + 0.03}
    return row | changes


def test_an_interaction_is_two_lines_with_its_number_above(two: Path, analysed: Analysed) -> None:
    frame = pd.DataFrame([interaction(), interaction(factor_b="train.loss", decision="undecided")])
    figure = drawn("interactions", with_frame(analysed(two), "interactions", frame))
    first, second = (axes for axes in figure.axes if axes.get_visible())
    assert [np.asarray(line.get_ydata()).tolist() for line in first.get_lines()] == [[0.5, 0.3], [0.55, 0.4]]
    assert first.texts[0].get_text() == "+5.0 [+1.0, +9.0], decided"
    assert not same_color(first.get_lines()[0].get_markerfacecolor(), PAPER)
    assert same_color(second.get_lines()[0].get_markerfacecolor(), PAPER)


def test_scores_against_images_are_a_line_a_variant(two: Path, analysed: Analysed) -> None:
    rows = [
        {"variant": name, "images": size, "score": score, "low": score - 0.02, "high": score + 0.02, "seeds": 3}
        for name, scores in (("unet", (0.3, 0.4, 0.5)), ("noskip", (0.2, 0.25, 0.3)))
        for size, score in zip((20, 60, 200), scores, strict=True)
    ]
    figure = drawn("data_size", with_frame(analysed(two), "data_size", pd.DataFrame(rows)))
    axes = figure.axes[0]
    assert [np.asarray(line.get_ydata()).tolist() for line in axes.get_lines()] == [[0.3, 0.4, 0.5], [0.2, 0.25, 0.3]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["20", "60", "200"]


def test_stages_that_tell_variants_apart_are_drawn_and_others_said(
    two: Path, analysed: Analysed, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"variant": variant, "measure": measure, "layer": f"{stage}.conv{n}", "value": value * (1 + 0.01 * n)}
        for variant, share in (("unet", 0.9), ("noskip", 0.1))
        for measure, value in (("update_ratio", 0.01), ("skip_share", share))
        for stage in ("encoder.0", "encoder.1", "bottleneck")
        for n in (1, 2)
    ]
    frame = pd.DataFrame(rows)
    monkeypatch.setattr(Frames, "layers_of", lambda *_: frame)
    figure = drawn("gradients", analysed(two))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Gradient share of the skips"]
    named = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert named == ["encoder.0", "encoder.1", "bottleneck"]
    assert "Not shown: the update ratios of no stage differ by a factor of two" in str(figure.get_label())
    alike = frame[frame["measure"] == "update_ratio"]
    monkeypatch.setattr(Frames, "layers_of", lambda *_: alike)
    with pytest.raises(NotDrawn, match="no stage differ by a factor of two"):
        gradients(analysed(two))
