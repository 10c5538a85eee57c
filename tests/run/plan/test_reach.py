"""What a study can find before it is run: its phases, and the difference that their seeds detect."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import pytest
from statsmodels.stats.power import TTestIndPower  # type: ignore[import-untyped]

from ablate.run.plan.reach import OTHER_SPREADS, POWER, Spreads, contrasts, detectable, later_phases, reach_lines
from ablate.study.study import Study
from tests.study.study_files import GOOD, read

SPREADS = Spreads(0.02, 0.0, "the test's own")


def study(folder: Path, more: str, variants: str = "  noskip: {skip: none}\n") -> Study:
    return read(folder, GOOD.replace("  noskip: {skip: none}\n", variants).replace("seeds: 2\n", more))


def test_the_phases_after_the_grid_are_counted_variant_by_variant(tmp_path: Path) -> None:
    text = "screen: {again: 3, more: 2}\nconfirm: {until: decided, looks: [4, 8, 12], at_most: 8}\n"
    again, fresh = later_phases(study(tmp_path, text))
    # Only two rates are in the grid, whatever `again` says.
    assert again.runs == {"unet": (4, 4), "noskip": (4, 4)} and again.total == (8, 8)
    assert fresh.runs == {"unet": (4, 8), "noskip": (4, 8)} and fresh.total == (8, 16)
    excluded = study(tmp_path, "screen: {}\nexclude: [{variant: noskip, lr: 1e-3}]\n")
    (only,) = later_phases(excluded)
    assert only.runs == {"unet": (2, 2), "noskip": (0, 0)}, "where one setting is left nothing is chosen"
    assert later_phases(study(tmp_path, "seeds: 2\n")) == []


def test_the_detectable_difference_is_that_of_the_t_test_at_holms_first_step(tmp_path: Path) -> None:
    variants = "  noskip: {skip: none}\n  residual: {block: residual}\n  again: {control: true}\n"
    planned = study(tmp_path, "confirm: {seeds: 6}\n", variants)
    assert contrasts(planned) == 2, "an A/A control is a family of its own"
    effect = TTestIndPower().solve_power(nobs1=6, alpha=0.05 / 2, power=POWER)
    assert detectable(planned, SPREADS) == {6: pytest.approx(0.02 * effect, rel=1e-3)}


def test_looks_find_less_early_and_a_little_less_late_than_one_look_at_the_end(tmp_path: Path) -> None:
    looks = detectable(study(tmp_path, "screen: {}\nconfirm: {until: decided, looks: [4, 8, 16]}\n"), SPREADS)
    (fixed,) = detectable(study(tmp_path, "screen: {}\nconfirm: {seeds: 16}\n"), SPREADS).values()
    assert list(looks) == [4, 8, 16]
    assert looks[4] > looks[8] > looks[16] > fixed > 0.95 * looks[16]


def test_without_fresh_seeds_the_seeds_of_the_best_cells_count(tmp_path: Path) -> None:
    assert list(detectable(study(tmp_path, "screen: {seeds: 2, more: 3}\n"), SPREADS)) == [5]
    assert list(detectable(study(tmp_path, "seeds: [4, 9, 2]\n"), SPREADS)) == [3]
    (nothing,) = detectable(study(tmp_path, "seeds: 1\n"), SPREADS).values()
    assert isnan(nothing)


def test_it_is_said_which_spreads_it_rests_on(tmp_path: Path) -> None:
    found, source = reach_lines(study(tmp_path, "confirm: {seeds: 6}\n"))
    assert found.startswith("can find: differences of mIoU from 3.6 points on with 6 fresh seeds a variant")
    assert "2 points between seeds" in source and "study of street scenes" in source and "--power" in source
    assert "the noise of choosing a setting" in reach_lines(study(tmp_path, "seeds: 3\n"))[0]
    assert reach_lines(study(tmp_path, "seeds: 1\n")) == ["can find: nothing, with one seed there is no interval"]
    assert reach_lines(study(tmp_path, "seeds: 3\n", "")) == [], "one variant is compared with nothing"
    folder = GOOD.replace("{name: street, size: [32, 48], train: 8, val: 4, test: 4}", "{name: folder, root: no}")
    assert OTHER_SPREADS.source in reach_lines(read(tmp_path, folder, check_components=False))[1]
