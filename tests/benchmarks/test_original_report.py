"""The page on the original report: its tables are those of the published studies, and it hides no verdict."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from benchmarks.original_report import JUDGES, MANY_RUNS, PAGE, PUBLISHED, filled, published, tables_of


@pytest.fixture(scope="module")
def tables() -> dict[str, str]:
    return tables_of(PUBLISHED)


def test_the_page_holds_the_tables_of_the_published_studies(tables: dict[str, str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- (?!end)(\w+) -->", page)) == set(tables)
    assert filled(page, tables) == page, "run `python -m benchmarks.original_report`"


def test_every_claim_of_every_study_is_on_the_page_with_its_verdict(tables: dict[str, str]) -> None:
    for study in published(PUBLISHED, [*MANY_RUNS, *JUDGES]):
        for claim in study.claims.to_dict("records"):
            lines = [line for text in tables.values() for line in text.splitlines() if claim["says"] in line]
            assert any(study.link in line and claim["verdict"] in line for line in lines), claim["id"]


def test_a_claim_that_one_study_supports_is_not_called_unsupported(tables: dict[str, str]) -> None:
    claims = pd.concat([study.claims for study in published(PUBLISHED, [*MANY_RUNS, *JUDGES])])
    for says, verdicts in claims.groupby("says")["verdict"]:
        assert (str(says) in tables["unsupported"]) == ("supported" not in set(verdicts))
