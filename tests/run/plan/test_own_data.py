"""The data of variants: what is trained on may differ, what is scored may not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ablate.errors import StudyError
from ablate.run.plan.describe import Shape, describe
from ablate.run.plan.dry import load_data, own_data
from tests.study.study_files import GOOD, read


def own(folder: Path, data: str, overrides: Sequence[str] = ()) -> dict[str, int]:
    """The distinct training images of every variant where `noskip` has this data of its own."""
    study = read(folder, GOOD.replace("noskip: {skip: none}", f"noskip: {{data: {data}}}"), overrides)
    found = own_data(study, load_data(study))
    return {name: len(set(data.splits["train"].names)) for name, data in found.items()}


@pytest.mark.parametrize(("data", "images"), [("{fraction: 0.5}", 4), ("{train: 3}", 3)])
def test_variants_train_on_their_own_images_and_share_val_and_test(data: str, images: int, tmp_path: Path) -> None:
    assert own(tmp_path, data) == {"unet": 8, "noskip": images}


def test_the_plan_counts_the_images_and_names_a_confound(tmp_path: Path) -> None:
    study = read(tmp_path, GOOD.replace("noskip: {skip: none}", "noskip: {data: {fraction: 0.5, steps: epochs}}"))
    shapes = {name: Shape.of(data) for name, data in own_data(study, load_data(study)).items()}
    report = describe(study, shapes["unet"], shapes)
    assert [item.train_images for item in report.variants] == [8, 4]
    assert any(note.startswith("noskip also differs in data.fraction: a declared") for note in report.notes)


FAULTS = {
    "other test images": (
        "{test: 3}",
        "its data have other val or test images, so that its score compares with no other; "
        "let the variants differ in what is trained on alone",
    ),
    "another scene on every image": (
        "{seed: 1}",
        "its data have other val or test images, so that its score compares with no other; "
        "let the variants differ in what is trained on alone",
    ),
    "another size": (
        "{size: [32, 32]}",
        "images of another size are scored at another size; write measure: {native: true}, to score at the masks' own",
    ),
    "a part that is the whole": (
        "{fraction: 0.99, steps: epochs}",
        "expected training images of its own, got the 8 of another variant; take fractions that are further apart",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_data_that_cannot_be_compared_are_one_line_at_their_place(name: str, tmp_path: Path) -> None:
    data, message = FAULTS[name]
    with pytest.raises(StudyError) as caught:
        own(tmp_path, data)
    (line,) = str(caught.value).split("\n")
    assert line.endswith(f"study.yaml:6: variants.noskip.data: variant 'noskip': {message}")
