"""Claims in plain words, in their own units, and never another word than the main comparison without saying so."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, nan, sqrt
from pathlib import Path
from typing import Any

import pytest
from statsmodels.stats.power import TTestIndPower  # type: ignore[import-untyped]

from ablate.analysis.analyse import Analysis
from ablate.report.tables.main import claims
from ablate.report.words.claim_words import beside, deciding, sentence, value_text
from ablate.study.spec import ClaimSpec
from tests.report.conftest import Analysed


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        (
            {"metric": "test/iou/fence", "left": "noskip", "op": "<", "right": "unet"},
            "noskip has a lower test IoU of fence than unet",
        ),
        (
            {"metric": "train_images_per_s", "left": "a", "op": ">=", "right": "b", "factor": 0.9},
            "a has at least 0.9 times the training speed of b",
        ),
        (
            {"metric": "rise", "variant": "any", "op": ">", "value": 1.1, "where": {"lr": ">=5e-4"}},
            "At least one variant has a rise of the training loss above 1.1 at every setting with lr ≥ 5e-4",
        ),
        (
            {"metric": "convergence", "variant": "unet", "expect": "converged", "where": {"lr": 1e-4}},
            "unet is converged at lr = 1e-4",
        ),
    ],
)
def test_a_claim_is_a_sentence(claim: dict[str, Any], said: str) -> None:
    assert sentence(ClaimSpec(**claim)) == said


@pytest.mark.parametrize(
    ("claim", "row", "said"),
    [
        (
            {"metric": "test/mean_iou", "left": "a", "op": "<", "right": "b", "margin": 0.01},
            {"value": -0.19, "low": -0.24, "high": -0.14, "threshold": -0.01, "side": "below"},
            "−19.0 points (−24.0 to −14.0); needed: below −1.0",
        ),
        (
            {"metric": "rise", "variant": "any", "op": ">", "value": 1.25},
            {"value": 0.5, "low": 0.0, "high": 0.75, "threshold": 0.2, "side": "above"},
            "2.00 (1.00 to 4.00); needed: above 1.25",
        ),
        (
            {"metric": "parameters", "left": "a", "op": "<=", "right": "b", "factor": 1.1},
            {"value": 1.0168, "low": 1.0168, "high": 1.0168, "threshold": 1.1, "side": "below"},
            "1.017×; needed: below 1.100×",
        ),
        ({"metric": "rise", "left": "a", "op": ">", "right": "b"}, {"value": nan}, ""),
    ],
)
def test_its_number_is_in_its_own_unit(claim: dict[str, Any], row: dict[str, Any], said: str) -> None:
    assert value_text(ClaimSpec(**claim), row) == said


def undecided(analysis: Analysis) -> Analysis:
    contrasts = analysis.contrasts.assign(decision="undecided")
    return replace(analysis, contrasts=contrasts)


def test_a_claim_supported_beside_an_undecided_verdict_says_so_in_its_line(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)
    claim = ClaimSpec(metric="test/mean_iou", left="noskip", op="<", right="unet")
    assert not beside(analysis, claim, {"verdict": "supported"})
    said = beside(undecided(analysis), claim, {"verdict": "supported"})
    assert "uncorrected; the corrected comparison of the two in test mIoU is undecided" in said
    assert "decided (noskip worse)" in beside(analysis, claim, {"verdict": "inconclusive"})
    first = claims(undecided(analysis)).frame.iloc[0]
    assert (first["verdict"] == "supported") == ("uncorrected" in first["note"])


def test_a_measure_of_detail_says_that_detail_as_a_whole_is_undecided(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)
    claim = ClaimSpec(metric="test/thin_recall", left="noskip", op="<", right="unet")
    detail = analysis.detail_verdicts.assign(verdict="undecided")
    said = beside(replace(analysis, detail_verdicts=detail), claim, {"verdict": "supported"})
    assert said == "Fine detail as a whole, which takes several such measures, is undecided"


OPEN = {
    "verdict": "inconclusive",
    "comparisons": 1,
    "n": 5,
    "confidence": 0.95,
    "threshold": 0.0,
    "at": "unet at lr=0.01",
}


def test_an_inconclusive_claim_names_the_seeds_that_would_decide_it_and_their_command(
    two: Path, analysed: Analysed
) -> None:
    analysis = analysed(two)
    claim = ClaimSpec(metric="test/mean_iou", left="noskip", op="<", right="unet")
    spread, n, gap = 0.02, 5, 0.015
    reach = 2.306 * spread * sqrt(2 / n)  # Student's t of 8 degrees of freedom at 0.975
    said = deciding(analysis, claim, OPEN | {"value": gap, "low": gap - reach, "high": gap + reach})
    needed = ceil(TTestIndPower().solve_power(gap / spread, alpha=0.05, power=0.8))
    assert f"{needed} seeds a variant " in said and said.endswith(f"(-o confirm.seeds={needed})")
    far = deciding(analysis, claim, OPEN | {"value": 0.001, "low": 0.001 - reach, "high": 0.001 + reach})
    assert far == "More than 100 seeds would be needed to decide it"
    assert not deciding(analysis, claim, OPEN | {"verdict": "supported"})


def test_a_claim_at_a_rate_with_one_seed_names_the_least_that_a_verdict_needs(two: Path, analysed: Analysed) -> None:
    claim = ClaimSpec(metric="rise", left="noskip", op=">", right="unet", where={"lr": 1e-4})
    said = deciding(analysed(two), claim, OPEN | {"n": 1, "value": 0.0, "low": nan, "high": nan})
    assert said.endswith("4 seeds at every setting (-o seeds=4)")
