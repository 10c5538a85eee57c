"""Numbers in sentences: one thing is not said in the plural."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ablate.analysis.analyse import analyse
from ablate.analysis.frames import load_results
from ablate.report.page.document import make_page
from ablate.wording import count_of, listed, range_of, short_path
from tests.planted import plant


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 seeds"), (1, "1 seed"), ("1", "1 seed"), (2, "2 seeds"), ("1 to 3", "1 to 3 seeds")]
)
def test_a_noun_is_in_the_plural_unless_there_is_one(number: int | str, said: str) -> None:
    assert count_of(number, "seed") == said


def test_a_range_of_equal_numbers_is_one_number() -> None:
    assert [range_of(numbers) for numbers in ([3, 2, 3], [3, 3], [1])] == ["2 to 3", "3", "1"]


def test_a_path_is_shortened_where_that_leads_to_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    assert short_path(tmp_path / "a" / ".." / "c") == tmp_path / "c"
    assert short_path(tmp_path / "link" / ".." / "c") == tmp_path / "link" / ".." / "c"


def test_names_are_listed_as_in_a_sentence() -> None:
    assert [listed("abc"[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]


def test_a_study_of_one_seed_and_epoch_is_reported_in_the_singular(tmp_path: Path) -> None:
    path = plant(
        tmp_path / "p", variants=("unet", "noskip"), lrs=(3e-4,), seeds=1, images=1, epochs=1, predictions=False
    )
    frames = load_results(path)
    analysis = analyse(frames)
    page = make_page(analysis, [], [])
    said = [page.methods, *page.subject, page.unfinished, *page.notes]
    said += [text for sentences in page.findings.values() for _, text in sentences]
    reasons = [frame["reason"] for frame in (analysis.cells, analysis.stability, analysis.convergence)]
    said += [str(text) for reason in reasons for text in reason]
    said += [str(text) for text in frames.trials["missing"].iloc[0].values()]
    assert any("1 epoch" in text for text in said)
    assert any("1 seed" in text for text in said)
    plural = re.compile(r"\b1 (?:finite )?(?:trial|seed|epoch|step|rate|image|variant|setting|cell|round)s\b")
    assert [text for text in said if plural.search(text)] == []
