"""Splits: fractions, folds, folders and lists, with groups that stay whole."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablate.data.dataset import SPLITS, Findings
from ablate.data.files.splitting import (
    Dealt,
    Folders,
    Lists,
    Rule,
    deal,
    folded,
    group_of,
    pick,
    read_split,
)

THIRDS = Dealt({"train": 0.7, "val": 0.15, "test": 0.15}, {name: name for name in SPLITS}, 0)


def read(split: dict[str, Any] | None, root: Path, base: Path | None = None) -> tuple[Rule | None, list[str]]:
    findings = Findings()
    rule, _ = read_split(split, None, root, base or root, findings)
    return rule, [str(problem) for problem in findings.problems()]


def dealt(names: Sequence[str], groups: Sequence[str | None], rule: Dealt) -> list[str]:
    findings = Findings()
    chosen = deal(names, groups, rule, findings, {})
    findings.stop()
    return chosen


@pytest.mark.parametrize(("count", "expected"), [(20, (14, 3, 3)), (3, (1, 1, 1)), (100, (70, 15, 15)), (7, (5, 1, 1))])
def test_fractions_are_kept_as_closely_as_whole_images_allow(count: int, expected: tuple[int, int, int]) -> None:
    names = [f"{index}.png" for index in range(count)]
    chosen = Counter(dealt(names, [None] * count, THIRDS))
    assert (chosen["train"], chosen["val"], chosen["test"]) == expected


def test_the_order_of_the_files_has_no_influence_and_the_seed_has() -> None:
    names = [f"image/{index}.png" for index in range(40)]
    first = dict(zip(names, dealt(names, [None] * 40, THIRDS), strict=True))
    back = dict(zip(names[::-1], dealt(names[::-1], [None] * 40, THIRDS), strict=True))
    assert first == back
    other = dict(zip(names, dealt(names, [None] * 40, replace(THIRDS, seed=1)), strict=True))
    assert first != other
    # Frozen: a change would change which images a user's study is tested on.
    assert [name for name, split in first.items() if split == "test"] == FROZEN_TEST


FROZEN_TEST = [f"image/{index}.png" for index in (7, 14, 15, 21, 24, 36)]


def test_groups_stay_whole_whatever_their_sizes() -> None:
    groups = [f"p{patient}" for patient, count in enumerate((30, 9, 8, 5, 5, 3, 2, 1)) for _ in range(count)]
    names = [str(index) for index in range(len(groups))]
    chosen = dealt(names, groups, THIRDS)
    assert all(len({split for split, g in zip(chosen, groups, strict=True) if g == group}) == 1 for group in groups)
    counts = Counter(chosen)
    assert abs(counts["train"] - 44.1) < 2 and abs(counts["val"] - 9.5) < 2 and abs(counts["test"] - 9.5) < 2


def test_no_split_is_left_empty_where_groups_are_few() -> None:
    groups = ["a"] * 10 + ["b"] * 10 + ["c"] * 10
    assert sorted(set(dealt([str(index) for index in range(30)], groups, THIRDS))) == ["test", "train", "val"]
    findings = Findings()
    deal(["0", "1", "2"], ["a", "a", "b"], THIRDS, findings, {})
    assert [str(problem) for problem in findings.problems()] == ["data.split: 3 splits need as many groups, got 2"]


def test_folds_test_every_image_once_and_never_overlap() -> None:
    names = [f"{index}.png" for index in range(23)]
    groups = [str(index // 2) for index in range(23)]
    tested: Counter[str] = Counter()
    for fold in range(4):
        chosen = dealt(names, groups, folded(4, fold, 3))
        tested.update(name for name, split in zip(names, chosen, strict=True) if split == "test")
        following = dealt(names, groups, folded(4, (fold + 1) % 4, 3))
        assert [split == "val" for split in chosen] == [split == "test" for split in following]
        assert Counter(chosen)["train"] in range(10, 14)
    assert tested == Counter(names)


def test_lists_name_images_by_path_file_or_stem() -> None:
    images = ["a/1.png", "a/2.png", "b/3.png", "b/1.png"]
    findings = Findings()
    rule = Lists({"train": ("a/1.png", "2"), "val": ("3.png",), "test": ("b/1",)})
    assert pick(images, rule, findings) == {"train": [0, 1], "val": [2], "test": [3]}
    assert not findings
    bad = Lists({"train": ("1", "9.png"), "val": ("2.png", "3"), "test": ("a/2",)})
    pick(images, bad, findings)
    assert [str(problem) for problem in findings.problems()] == [
        "data.split.train: 1 name matching several images: 1",
        "data.split.train: 1 name matching no image: 9.png",
        "data.split: 1 image listed twice: a/2 (val, test)",
    ]


def test_every_form_of_a_split_is_read(tmp_path: Path) -> None:
    for name in ("tr", "va", "te"):
        (tmp_path / name).mkdir()
    (tmp_path / "train.txt").write_text("\ufeff# names\n1\n\n 2 \n", encoding="utf-8")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "val.txt").write_text("3\n")
    assert read(None, tmp_path)[0] == THIRDS
    assert read({"folds": 5, "fold": 2}, tmp_path)[0] == folded(5, 2, 0)
    assert read({"train": "tr", "val": "va/", "test": "te"}, tmp_path)[0] == Folders(
        {"train": "tr", "val": "va", "test": "te"}
    )
    mixed = {"train": "train.txt", "val": "val.txt", "test": ["4", "5"]}
    assert read(mixed, tmp_path, tmp_path / "study")[0] == Lists(
        {"train": ("1", "2"), "val": ("3",), "test": ("4", "5")}
    )


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ({"train": 0.8, "val": 0.2}, "data.split: expected train, val and test, got no test"),
        ({"train": 0.8, "val": 0.3, "test": 0.1}, "add up to 1, got train 0.8, val 0.3, test 0.1"),
        ({"train": 1, "val": 0, "test": 0}, "fractions above 0"),
        ({"train": 0.7, "val": 0.15, "test": 0.15, "seed": -1}, "data.split.seed: expected a whole number"),
        (
            {"train": 0.7, "val": 0.15, "test": 0.15, "sed": 1},
            "data.split.sed: expected a part of a split, got an unknown key; did you mean 'seed'?",
        ),
        ({"folds": 2}, "data.split.folds: expected 3 to 1000 folds"),
        ({"folds": 5, "fold": 5}, "data.split.fold: expected a fold in 0..4, got 5"),
        ({"fold": 1}, "data.split.folds: expected 3 to 1000 folds"),
        ({"train": "tr", "val": "va", "test": "../te"}, "data.split.train: there is no folder 'tr'"),
        ({"train": "train.txt", "val": ["a"], "test": ["b"]}, "data.split.train: there is no file 'train.txt'"),
        ({"train": 0.5, "val": ["a"], "test": ["b"]}, "alike for all three splits, got 0.5"),
        ({"train": ["c"], "val": ["a"], "test": ["b"], "seed": 0}, "data.split.seed: expected no seed"),
    ],
)
def test_what_is_no_split_says_why(tmp_path: Path, split: dict[str, Any], expected: str) -> None:
    _, problems = read(split, tmp_path)
    assert expected in "\n".join(problems)


def pattern_of(group: str, findings: Findings) -> re.Pattern[str] | None:
    return read_split(None, group, Path(), Path(), findings)[1]


def test_groups_are_read_from_names_or_from_paths() -> None:
    findings = Findings()
    sequence = pattern_of(r"^(\w+)_", findings)
    assert sequence is not None
    assert group_of("x/p1_007.png", sequence, findings) == "p1"
    folder = pattern_of(r"^[^/]+/", findings)
    assert folder is not None
    assert group_of("x/p1_007.png", folder, findings) == "x/"
    assert group_of("x/p1_007.png", None, findings) is None
    assert not findings
    group_of("x/7.png", sequence, findings)
    assert pattern_of("(", findings) is None
    texts = [str(problem) for problem in findings.problems()]
    assert texts[0].startswith("data.group: not a regular expression")
    assert texts[1] == "data.group: 1 image in which 'group' finds nothing: x/7.png"


def test_copies_of_an_image_and_the_groups_that_share_them_stay_together() -> None:
    names = [f"{index}.png" for index in range(30)]
    findings = Findings()
    copies = {"3.png": "x", "9.png": "x", "20.png": "y", "21.png": "y", "22.png": "y"}
    chosen = dict(zip(names, deal(names, [None] * 30, THIRDS, findings, copies), strict=True))
    assert chosen["3.png"] == chosen["9.png"]
    assert len({chosen[name] for name in ("20.png", "21.png", "22.png")}) == 1
    groups = [f"p{index // 3}" for index in range(30)]
    shared = {"0.png": "x", "5.png": "x", "4.png": "y", "29.png": "y"}  # p0 = p1 by x, p1 = p9 by y
    chosen = dict(zip(names, deal(names, groups, THIRDS, findings, shared), strict=True))
    assert len({chosen[f"{index}.png"] for index in (0, 1, 2, 3, 4, 5, 27, 28, 29)}) == 1
    assert not findings
    deal(names, [None] * 30, THIRDS, findings, dict.fromkeys(names, "x"))
    assert [str(problem) for problem in findings.problems()] == [
        "data.split: 3 splits need as many different images, got 1"
    ]
