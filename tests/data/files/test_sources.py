"""Files before they are decoded: names, pairs and patterns."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.data.dataset import Findings
from ablate.data.files.sources import check_pattern, list_files, pair_up


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def pair(root: Path, images: str, masks: str) -> tuple[list[tuple[str, str]], list[str]]:
    findings = Findings()
    found = pair_up(root, images, masks, findings)
    return found, [str(problem) for problem in findings.problems()]


@pytest.mark.parametrize(
    ("images", "masks", "files"),
    [
        ("image/*.png", "label/*.png", [("image/a.png", "label/a.png"), ("image/b.png", "label/b.png")]),
        ("image/*", "label/*", [("image/a.jpg", "label/a.png"), ("image/b.tif", "label/b.png")]),
        # Endings of several cameras, beside files that are no pictures.
        ("i/*", "m/*_mask.png", [("i/a b.JPG", "m/a b_mask.png"), ("i/ü.jpeg", "m/ü_mask.png")]),
        ("i/*.*", "m/*_mask.*", [("i/a.JPG", "m/a_mask.png"), ("i/b.png", "m/b_mask.tif")]),
        ("i/*.[jJ][pP]*", "m/*_mask.png", [("i/a.JPG", "m/a_mask.png"), ("i/b.jpeg", "m/b_mask.png")]),
        ("i/v1.0_*", "m/v1.0_*_m.png", [("i/v1.0_a.png", "m/v1.0_a_m.png"), ("i/v1.0_b.png", "m/v1.0_b_m.png")]),
        ("i/*.png", "m/*_mask.png", [("i/a.png", "m/a_mask.png"), ("i/b.png", "m/b_mask.png")]),
        ("i/*.png", "m/{stem}_mask.png", [("i/a.png", "m/a_mask.png"), ("i/b.png", "m/b_mask.png")]),
        ("*/i/*.png", "*/m/*.png", [("p1/i/0.png", "p1/m/0.png"), ("p2/i/0.png", "p2/m/0.png")]),
        ("**/i/*.png", "**/m/*.png", [("p/q/i/0.png", "p/q/m/0.png"), ("r/i/0.png", "r/m/0.png")]),
        ("**/*.png", "{parent}/{stem}.gif", [("p/0.png", "p/0.gif"), ("q/0.png", "q/0.gif")]),
        # Masks that lie among the images, as in BUSI.
        ("*.png", "{stem}_mask.png", [("be (1).png", "be (1)_mask.png"), ("be (2).png", "be (2)_mask.png")]),
        ("*.png", "*_mask.png", [("x [1].png", "x [1]_mask.png"), ("ü.png", "ü_mask.png")]),
        ("i[0-9]/*.png", "m[0-9]/*.png", [("i1/a.png", "m1/a.png"), ("i2/a.png", "m2/a.png")]),
        ("img_*.png", "lab_*.png", [("img_1.png", "lab_1.png"), ("img_2.png", "lab_2.png")]),
    ],
)
def test_ways_of_naming_pairs(tmp_path: Path, images: str, masks: str, files: list[tuple[str, str]]) -> None:
    make(tmp_path, *(name for both in files for name in both), "i/.hidden.png", "i/Thumbs.db", "readme.txt")
    assert pair(tmp_path, images, masks) == (sorted(files), [])


@pytest.mark.parametrize("masks", ["label/*.png", "label/{stem}.png"])
@pytest.mark.fault("D2", "counted on both sides, the first ones named")
def test_what_has_no_partner_is_counted_on_both_sides(tmp_path: Path, masks: str) -> None:
    make(tmp_path, *(f"image/{name}.png" for name in "abcdefg"), *(f"label/{name}.png" for name in "fgxyz"))
    found, problems = pair(tmp_path, "image/*.png", masks)
    assert found == [("image/f.png", "label/f.png"), ("image/g.png", "label/g.png")]
    assert problems == [
        "data.masks: 5 images without a mask: image/a.png, image/b.png, image/c.png and 2 more;"
        " add the masks, or move these images out of the folder",
        "data.images: 3 masks without an image: label/x.png, label/y.png, label/z.png;"
        " add the images, or move these masks out",
    ]


def test_nothing_found_and_nothing_paired(tmp_path: Path) -> None:
    make(tmp_path, "image/a.png", "label/b.png")
    assert "no file in" in pair(tmp_path, "photo/*.png", "photo/{stem}_mask.png")[1][0]
    _, problems = pair(tmp_path, "image/*.png", "label/*.png")
    assert problems == [
        "data.masks: no image of 'image/*.png' has a mask among 'label/*.png';"
        " they are paired by their names without ending"
    ]


def test_a_name_that_fits_two_masks_is_not_guessed(tmp_path: Path) -> None:
    make(tmp_path, "image/a.png", "image/b.png", "label/a.png", "label/a.tif", "label/b.png")
    found, problems = pair(tmp_path, "image/*.png", "label/*")
    assert found == [("image/b.png", "label/b.png")]
    assert problems == [
        "data.masks: 3 files sharing a name, so that no pair is clear: image/a.png, label/a.png, label/a.tif;"
        " say which mask is meant, such as masks: label/{stem}_mask.png"
    ]


def test_files_are_sorted_and_hidden_ones_and_folders_left_out(tmp_path: Path) -> None:
    make(tmp_path, "b/f10.png", "b/f9.png", "a/1.png", "a/._1.png", ".trash/3.png", "a/x.png/y.png")
    assert list_files(tmp_path, "**/*.png") == ["a/1.png", "a/x.png/y.png", "b/f9.png", "b/f10.png"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", "expected a pattern inside of the root, got ''"),
        ("/etc/*.png", "inside of the root"),
        ("../other/*.png", "set root to the folder that holds both"),
        ("a/{steem}.png", "unknown placeholder '{steem}' in 'a/{steem}.png'; did you mean 'stem'?"),
        ("a/*.{png,jpg}", "unknown placeholder '{png,jpg}'"),
    ],
)
def test_patterns_that_cannot_be_used(pattern: str, expected: str) -> None:
    findings = Findings()
    check_pattern(pattern, "data.masks", findings)
    assert expected in str(findings.problems()[0])
