"""What `ablate plan --power` prints."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from ablate.analysis.load import read_spec
from ablate.run.plan.planner import differences, print_power
from tests.planted import plant
from tests.study.study_files import GOOD, read

PUBLISHED = Path(__file__).resolve().parents[3] / "results" / "published" / "camvid-small"


def printed(folder: Path, seeds_of_pilot: int) -> str:
    """The planner's page for a study of two seeds, from a pilot."""
    pilot = plant(folder / "pilot", variants=("unet", "noskip"), lrs=(3e-4,), seeds=seeds_of_pilot, profile=False)
    text = io.StringIO()
    print_power(read(folder, GOOD), pilot, Console(width=200, file=text))
    return text.getvalue()


def test_a_pilot_tells_what_the_study_and_more_seeds_can_see(tmp_path: Path) -> None:
    text = printed(tmp_path, 3)
    assert "2 seeds (this study)" in text
    rows = [line.split("│") for line in text.splitlines() if "noskip − unet" in line]
    detectable = [float(cell) for cell in rows[0][2:-1]]
    assert len(detectable) == 6
    assert detectable == sorted(detectable, reverse=True), "more seeds see smaller differences"
    assert 0 < detectable[-1] < detectable[0]


def test_a_pilot_of_one_seed_cannot_tell(tmp_path: Path) -> None:
    text = printed(tmp_path, 1)
    assert "note: noskip: noskip has 1 seed with a result; a variance needs two" in text
    first = next(line for line in text.splitlines() if "noskip − unet" in line)
    assert {cell.strip() for cell in first.split("│")[2:-1]} == {"–"}


def test_a_pilot_that_was_another_experiment_is_named(tmp_path: Path) -> None:
    text = printed(tmp_path, 2)
    assert "note: the pilot differs: data.size [24, 32], here [32, 48]" in text
    assert "note: the pilot differs: train.epochs 20, here 2" in text
    assert "train.lr" not in text and "data.root" not in text


def test_a_pilot_like_the_study_is_not_complained_of() -> None:
    pilot = read_spec(PUBLISHED / "study.yaml")
    assert differences(pilot, pilot) == []
