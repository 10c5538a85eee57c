"""What probes say: headroom over training with its ends censored, gates beside their nulls, gates flattened."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.frames import load_results
from ablate.claims.verdicts import judge
from tests.planted import Truth, plant

Probes = dict[str, dict[str, list[float | None]]]


def probed(path: Path, change: Callable[[str, int], Probes], **more: object) -> Analysis:
    """The analysis of two variants at one rate with three seeds, whose probes are `change(variant, seed)`."""
    settings = {"images": 3, "epochs": 6, "predictions": False, "truth": Truth(diverged=(), delta={})} | more
    plant(path, variants=("unet", "attention"), lrs=(3e-4,), **settings)  # type: ignore[arg-type]
    for file in path.glob("trials/*/record.json"):
        record = json.loads(file.read_text())
        record["layers"] = change(record["variant"], record["seed"])
        file.write_text(json.dumps(record))
    return analyse(load_results(path))


def headroom(*values: list[float | None]) -> Callable[[str, int], Probes]:
    others: tuple[list[float | None], ...] = ([7.0, 256.0], [8.0, 256.0], [9.0, 256.0])
    return lambda variant, seed: {"lr_headroom": {"all": (values if variant == "unet" else others)[seed]}}


def test_headroom_is_averaged_on_the_logarithm_point_by_point(tmp_path: Path) -> None:
    analysis = probed(tmp_path / "p", headroom([1.0, 8.0], [2.0, 8.0], [4.0, 8.0]))
    rows: Any = analysis.headroom.query("variant == 'unet'").set_index("point")
    low, high = stats.t.interval(0.95, 2, 1.0, stats.sem([0, 1, 2]))  # octaves
    assert rows.loc[1, ["mean", "low", "high"]].tolist() == pytest.approx([2.0, 2**low, 2**high])
    assert rows.loc[1, ["lowest", "highest", "n", "n_censored"]].tolist() == [1.0, 4.0, 3, 0]
    assert rows.loc[2, ["mean", "low", "high"]].tolist() == pytest.approx([8.0, 8.0, 8.0])
    # A trial's own number is the least of its points.
    cell = analysis.stability.query("variant == 'unet' and measure == 'lr_headroom'").iloc[0]
    assert [cell["mean"], cell["low"], cell["high"]] == pytest.approx([2.0, 2**low, 2**high])


def test_a_headroom_at_an_end_of_the_range_is_a_bound_and_has_no_interval(tmp_path: Path) -> None:
    analysis = probed(tmp_path / "p", headroom([256.0], [2.0], [2.0**-6]))
    row = analysis.headroom.query("variant == 'unet'").iloc[0]
    assert row["n_censored"] == 2 and math.isnan(row["low"]) and math.isnan(row["high"])
    assert row["reason"] == "2 of 3 seeds lie at an end of the range probed: no interval"
    cell = analysis.stability.query("variant == 'unet' and measure == 'lr_headroom'").iloc[0]
    assert math.isnan(cell["low"]) and cell["reason"] == row["reason"]


CLAIMS = [
    {"id": "less-room", "metric": "lr_headroom", "left": "unet", "op": "<", "right": "attention"},
    {"id": "half-the-room", "metric": "lr_headroom", "left": "unet", "op": "<", "right": "attention", "factor": 0.5},
    {"id": "a-hundredth", "metric": "lr_headroom", "left": "unet", "op": "<", "right": "attention", "factor": 0.01},
    {"id": "above-one", "metric": "lr_headroom", "variant": "unet", "op": ">", "value": 1},
]


def test_claims_about_headroom_are_ratios(tmp_path: Path) -> None:
    analysis = probed(tmp_path / "p", headroom([2.0, 9], [2.1, 9], [2.2, 9]), claims=CLAIMS)
    rows = judge(analysis.frames, analysis).set_index("id")
    assert rows["verdict"].to_dict() == {
        "less-room": "supported", "half-the-room": "supported", "a-hundredth": "refuted", "above-one": "supported",
    }  # fmt: skip
    assert rows.loc["half-the-room", "threshold"] == -1.0
    assert rows.loc["less-room", "value"] == pytest.approx(np.log2([2.0 / 7, 2.1 / 8, 2.2 / 9]).mean())


def test_a_claim_about_censored_headroom_is_not_judged(tmp_path: Path) -> None:
    analysis = probed(tmp_path / "p", headroom([256.0], [256.0], [2.0]), claims=CLAIMS)
    rows = judge(analysis.frames, analysis).set_index("id")
    assert set(rows["verdict"]) == {"inconclusive"}
    assert rows.loc["above-one", "reason"] == "2 of 3 seeds of unet lie at an end of the range probed"


def gates(variant: str, seed: int) -> Probes:
    if variant == "unet":
        return {}
    return {
        "gate_auroc": {"g/sky": [0.7 + 0.01 * seed], "g/pole": [0.5]},
        "gate_auroc_shuffled": {"g/sky": [0.5 + 0.01 * seed], "g/pole": [0.5]},
        "gate_auroc_untrained": {"g/sky": [0.6], "g/pole": [None]},
        "gate_lift": {"g/sky": [1.2], "g/pole": [1.0]},
        "gate_ablation": {"g": [-0.02 - 0.001 * seed]},
        "update_ratio": {"encoder": [0.01]},
    }


def test_gates_stand_beside_their_nulls_run_by_run(tmp_path: Path) -> None:
    analysis = probed(tmp_path / "p", gates)
    rows = analysis.gates.set_index("class")
    assert rows.index.tolist() == ["sky", "pole"] and set(rows["gate"]) == {"g"}
    sky = rows.loc["sky"]
    assert (sky["auroc"], sky["shuffled"], sky["untrained"], sky["lift"]) == pytest.approx((0.71, 0.51, 0.6, 1.2))
    # By run the difference to the shuffled masks does not vary, to the untrained gate it does.
    assert sky["over_shuffled"] == pytest.approx(0.2)
    low, high = stats.t.interval(0.95, 2, 0.11, stats.sem([0.10, 0.11, 0.12]))
    assert (sky["over_untrained_low"], sky["over_untrained_high"]) == pytest.approx((low, high))
    assert rows["untrained"].isna()["pole"]
    ablated = analysis.gate_ablation
    assert ablated[["variant", "gate", "n"]].values.tolist() == [["attention", "g", 3]]
    low, high = stats.t.interval(0.95, 2, -0.021, stats.sem([0.020, 0.021, 0.022]))
    assert ablated[["delta", "low", "high"]].iloc[0].tolist() == pytest.approx([-0.021, low, high])


def test_without_probes_there_is_nothing_to_say(tmp_path: Path) -> None:
    analysis = probed(tmp_path / "p", lambda _variant, _seed: {})
    assert not len(analysis.headroom) and not len(analysis.gates) and not len(analysis.gate_ablation)
