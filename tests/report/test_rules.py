"""What stands under tables and figures: said from facts, once a frame, and for every frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ablate.claims.verdicts import judge
from ablate.report import rules
from ablate.report.lookup import rows_of
from tests.report.conftest import Analysed


def test_every_frame_has_a_rule_of_whole_sentences(unfinished: Path, analysed: Analysed) -> None:
    said = rules.all_rules(analysed(unfinished))
    assert {"cells", "variants", "contrasts", "classes", "detail", "stability", "convergence", "cost"} <= set(said)
    for name, text in said.items():
        assert text.endswith(".") and text[0].isupper() | text.startswith("lr_"), name
        assert len(text) > 80 and "nan" not in text, name
    assert "extension" not in said and "budget" not in said


def test_the_rule_of_contrasts_names_the_ways_that_were_made_and_what_they_have_in_common_once(
    two: Path, analysed: Analysed
) -> None:
    analysis = analysed(two)
    text = rules.contrasts(analysis)
    assert text.index("Own best: ") < text.index("Shared: ") < text.index("Matched: ") and "Confirmed: " not in text
    assert text.count("Multi-Bootstrap") == text.count("This is the primary decision.") == 1
    assert "(95 %)" in text and f"{analysis.frames.study.measure.resamples} replicates" in text
    alone = replace(analysis, contrasts=analysis.contrasts.query("kind == 'own_best'"))
    assert "Shared: " not in rules.contrasts(alone)
    assert rules.primary(replace(analysis, contrasts=analysis.contrasts[:0])) == ""


def test_facts_of_the_study_enter_the_rules(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)
    assert "Test scores at 24 × 32 pixels." in rules.cells(analysis)
    native = analysis.frames.study.measure.model_copy(update={"native": True})
    study = analysis.frames.study.model_copy(update={"measure": native})
    changed = replace(analysis, frames=replace(analysis.frames, study=study))
    assert "at the masks' own size" in rules.cells(changed)
    assert "images independently" in rules.contrasts(analysis)
    for kind, said in (
        ("groups", "by whole groups (12 of them)"),
        ("blocks", "in circular blocks of 7 within their 12 groups (conditional on these)"),
    ):
        contrasts = analysis.contrasts.assign(images_drawn=kind, groups=12, block=7)
        assert said in rules.contrasts(replace(analysis, contrasts=contrasts))


def test_the_rule_of_a_claim_says_the_side_and_how_many_comparisons_there_were(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)
    skips, slow = rows_of(judge(analysis.frames, analysis))
    text = rules.claim(skips)
    assert text.startswith("test/mean_iou, noskip − unet: multi-bootstrap, retune. ")
    assert "lies below -0.01" in text and "comparisons" not in text
    text = rules.claim(slow)
    assert "lies above 0.005" in text and "of 2 comparisons one must be, at α/2" in text
    assert "of 2 comparisons all must be" in rules.claim(slow | {"quantifiers": "all"})
    assert "'any' with α divided" in rules.claim(slow | {"quantifiers": "all any"})
    assert rules.claim(slow | {"exact": True}).endswith("a count without sampling error, compared as it is.")
    assert rules.claim(slow | {"comparisons": 0}) == ""
