"""What `ablate plan` prints."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from ablate.errors import DataError
from ablate.run.plan.view import check_document, checked, duration, plan_document, print_check, print_plan
from tests.study.study_files import GOOD, read


def printed(folder: Path, text: str = GOOD, *, estimate: bool = False, width: int = 200) -> str:
    """The plan of a study as a wide terminal shows it, unless told its columns."""
    text_file = io.StringIO()
    console = Console(width=width, file=text_file)
    print_plan(read(folder, text), console, estimate=estimate)
    return text_file.getvalue()


def test_the_plan_shows_trials_differences_parameters_and_time(tmp_path: Path) -> None:
    text = printed(tmp_path, estimate=True)
    assert "small: 8 trials (2 variants × 2 lr × 2 seeds)" in text
    assert "data: 8 / 4 / 4 images (train / val / test) at 32×48, 11 classes" in text
    row = next(line for line in text.splitlines() if "skip: concat → none" in line)
    assert "noskip" in row and "(0.9" in row
    assert "  - decoder.0.skip: SkipConnection()" in text
    assert "noskip-lr3e-4-seed0-" in text
    assert "time: about " in text
    assert "note: 2 seeds: intervals are wide below 5" in text


def test_the_runs_of_every_phase_and_what_they_can_find_are_said_first(tmp_path: Path) -> None:
    phases = "screen: {}\nconfirm: {until: decided, looks: [4, 8], futility: 0.02}"
    text = printed(tmp_path, GOOD.replace("seeds: 2", phases), estimate=True)
    lines = text.splitlines()
    assert lines[:4] == [
        "small: 4 trials (2 variants × 2 lr × 1 seed)",
        "then 4 trials: 1 seed more at each variant's 2 best settings by val",
        "then 8 to 16 trials: fresh seeds at the chosen settings until decided, looks at 4 and 8",
        "in all 16 to 24 trials",
    ]
    assert lines[4].startswith("can find: differences of mIoU from 3.1 points on with 8 fresh seeds, ")
    assert "seeds: intervals are wide" not in text
    cost = next(line for line in lines if line.startswith("time: about "))
    assert "TFLOP of training)" in cost
    alone = printed(tmp_path, GOOD.replace("seeds: 2", "screen: {}"))
    assert "note: screen without confirm chooses settings and decides nothing" in alone


def test_a_control_and_a_confound_are_called_so(tmp_path: Path) -> None:
    variants = "{skip: none, train: {weight_decay: 0.1}}\n  again: {control: true}"
    text = printed(tmp_path, GOOD.replace("{skip: none}", variants))
    assert "train.weight_decay: 0 → 0.1" in text
    assert "(control: an A/A copy)" in text
    assert "noskip also differs in train.weight_decay: a declared confound" in text


def test_what_is_excluded_is_counted(tmp_path: Path) -> None:
    text = printed(tmp_path, GOOD + "exclude: [{variant: noskip, lr: 1e-3}]\n")
    assert "small: 6 trials (2 variants × 2 lr × 2 seeds, less 2 excluded)" in text


def test_no_name_is_cut_off_in_a_narrow_terminal(tmp_path: Path) -> None:
    factors = "factors: {skip: [concat, attention], block: [plain, residual], norm: [batch, group]}\ndesign: grid"
    text = printed(tmp_path, GOOD.replace("variants:\n  unet: {}\n  noskip: {skip: none}", factors), width=80)
    tables = [line for line in text.splitlines() if line.startswith("│")]
    first = ["".join(line.split("│")[1].split()) for line in tables]
    assert "skip-attention+block-residual+norm-group" in "".join(first)
    assert not [name for name in first if name.endswith("…")]


def test_where_the_test_split_is_scored_is_said(tmp_path: Path) -> None:
    assert "own size" not in printed(tmp_path)
    assert "note: the test split is scored at the masks' own size" in printed(
        tmp_path, GOOD + "measure: {native: true}\n"
    )


def test_a_search_says_what_is_searched(tmp_path: Path) -> None:
    search = "search: {trials: 5, space: {lr: {low: 1e-4, high: 1e-2, log: true}, optimizer: {choices: [adam, sgd]}}}"
    text = printed(tmp_path, GOOD.replace("grid: {lr: [1e-3, 3e-4]}", search), estimate=True)
    assert "small: 20 searched trials (2 variants × 5 settings × 2 seeds)" in text
    assert "sampler of its own: lr from 1e-4 to 0.01 (log); optimizer one of adam, sgd" in text
    assert "time: about " in text


def test_data_that_cannot_be_used_end_the_plan(tmp_path: Path) -> None:
    text = GOOD.replace("{name: street, size: [32, 48], train: 8, val: 4, test: 4}", "{name: camvid, root: no}")
    with pytest.raises(DataError, match=r"study\.yaml:2: data\.root: "):
        printed(tmp_path, text)


def test_a_check_says_what_was_passed_and_what_the_run_takes(tmp_path: Path) -> None:
    text_file = io.StringIO()
    print_check(read(tmp_path), tmp_path / "results", Console(width=200, file=text_file))
    text = text_file.getvalue()
    assert text.startswith("small: nothing wrong was found\n  study: 2 variants, 8 trials in all\n")
    assert "data: 8 / 4 / 4 images (train / val / test) at 32 × 48, 11 classes" in text
    assert "networks: 2 variants passed a batch in training and in evaluation mode" in text
    assert re.search(r"disk: about \d+ MB when done, \d+ MB more while it runs \([\d.]+ [GM]B free\)", text)
    assert all(f"  {part}: " in text for part in ("device", "W&B", "results")) and "limits" not in text


def test_a_check_says_that_the_disk_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=1_000_000))
    text = io.StringIO()
    assert print_check(read(tmp_path), tmp_path / "results", Console(width=200, file=text)) == 1
    assert text.getvalue().startswith("small: there is too little room on the disk\n")
    assert "(1 MB free): NOT ENOUGH\n" in text.getvalue()
    # What is there of the study already needs no more room.
    (tmp_path / "results" / "trials").mkdir(parents=True)
    (tmp_path / "results" / "trials" / "weights").write_bytes(bytes(20_000_000))
    assert print_check(read(tmp_path), tmp_path / "results", Console(width=200, file=text)) == 0


def test_a_check_says_what_the_report_will_hold_against_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = read(tmp_path, GOOD.replace("  noskip: {skip: none}\n", ""))
    report, data, _ = checked(study)
    val, test = data.splits["val"], data.splits["test"]
    poor = {
        "train": data.splits["train"],
        "val": replace(val, masks=np.where(val.masks == 0, 1, val.masks)),
        "test": replace(test, groups=("a", "a", "b", "b")),
    }
    train = data.splits["train"]
    part = replace(data, splits={"train": replace(train, masks=np.where(train.masks == 3, 1, train.masks))})
    found = report, replace(data, splits=poor), {"unet": data, "small": part, "small-too": part}
    monkeypatch.setattr("ablate.run.plan.view.checked", lambda _study: found)
    assert check_document(study, tmp_path)["limits"] == (
        f"val has no pixel of {data.classes[0]}; train of 'small-too' has no pixel of {data.classes[3]}; "
        "the test images come in 2 groups, too few to stand for others (10 can; a larger test split has more)"
    )


def test_room_follows_what_is_kept(tmp_path: Path) -> None:
    rooms = {}
    for keep in ("none", "best", "last"):
        study = read(tmp_path, GOOD.replace("width: 4", "width: 32") + f"run: {{keep: {keep}}}\n")
        rooms[keep] = plan_document(study, tmp_path)["bytes"]["kept"]
    weights = rooms["best"] - rooms["none"]
    assert weights > 8 * 4 * 100_000 and rooms["last"] - rooms["none"] == 4 * weights
    assert rooms["none"] < 5e6  # `du` says 3 MB of two variants with eight trials of this size, their report among it


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (42, "42 s"), (420, "7 min"), (12_600, "3.5 h")])
def test_a_duration_in_the_unit_that_a_person_would_use(seconds: float, text: str) -> None:
    assert duration(seconds) == text
