"""The first screen: what helps and by how much, how sure, at which rate, at what cost, and what not to believe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ablate.analysis.analyse import Analysis
from ablate.report.format import percent_spread
from ablate.report.lookup import busy
from ablate.report.page.document import make_page
from ablate.report.tables.main import results
from ablate.report.words.component_words import Component, component, differs_text, span_text
from ablate.report.words.headline import cards, headline, subject
from ablate.report.words.methods import methods_paragraph
from ablate.report.words.notes import notes
from ablate.report.words.verdict_rows import verdict_rows
from ablate.study.spec import ClaimSpec, ConfirmSpec, VariantSpec
from tests.planted import Truth, plant
from tests.report.conftest import CLAIMS, Analysed

ASKED = ("At which rate?", "What would decide it?")


@pytest.fixture
def study(two: Path, analysed: Analysed) -> Analysis:
    return analysed(two)


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory, analysed: Analysed) -> Analysis:
    """Two variants, one seed at every rate, six fresh ones; the fresh ones decide."""
    path = tmp_path_factory.mktemp("confirmed") / "confirmed"
    return analysed(plant(path, variants=("unet", "noskip"), seeds=2, epochs=6, images=8, confirm=6, predictions=False))


def changed(analysis: Analysis, **columns: Any) -> Analysis:
    """The analysis with columns of its primary contrast changed."""
    contrasts = analysis.contrasts.copy()
    for name, value in columns.items():
        old = contrasts[name].astype(object) if name in contrasts else pd.Series(None, contrasts.index, dtype=object)
        contrasts[name] = old.where(~contrasts["primary"].astype(bool), value)
    return replace(analysis, contrasts=contrasts)


def test_the_sentence_credits_the_component_that_the_variant_goes_without(study: Analysis) -> None:
    row = study.contrasts[study.contrasts["primary"].astype(bool)].iloc[0]
    assert row["decision"] == "worse"
    size = span_text(-row["delta"], -row["high"], -row["low"], unit=" points of test mIoU")
    assert headline(study) == f"Skip connections help: {size}."


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        ("better", "Skip connections hurt: 3.0 points of test mIoU (1.0 to 5.0)."),
        ("equivalent", "Skip connections make no difference of more than 0.5 points of test mIoU."),
        (
            "futile",
            "Stopped early, as more seeds would hardly have decided it: skip connections.",
        ),
        (
            "undecided",
            "No component was shown to help or to hurt. Undecided: skip connections −3.0 points of test mIoU "
            "(−5.0 to −1.0).",
        ),
    ],
)
def test_the_sentence_is_never_stronger_than_the_decision(study: Analysis, decision: str, said: str) -> None:
    assert headline(changed(study, decision=decision, delta=0.03, low=0.01, high=0.05)) == said


def test_a_component_is_called_by_its_name_and_a_variant_of_several_by_its_own(study: Analysis) -> None:
    def called(differs: dict[str, list[Any]]) -> tuple[str, bool]:
        frames = replace(study.frames, run={**study.frames.run, "variants": {"odd": {"differs": differs}}})
        tested = component(replace(study, frames=frames), "odd")
        return tested.name, tested.of_variant

    assert called({"block": ["plain", "residual"]}) == ("residual blocks", True)
    assert called({"dropout": [0.0, 0.1]}) == ("dropout 0.1", True)
    assert called({"dropout": [0.1, 0.0]}) == ("dropout 0.1", False)
    assert called({"replace": [None, {"model.*.attention": "identity"}]}) == ("the layers model.*.attention", False)
    assert called({"data.fraction": [1.0, 0.3]}) == ("training on 30 % of the images", True)
    assert called({"train.augment.scale": [[0.75, 1.5], [1.0, 1.0]]}) == ("scale [0.75, 1.5]", False)
    # Against no skips at all they are more than gates.
    assert called({"skip": ["none", "attention"]}) == ("skip connections with attention gates", True)
    assert called({"skip": ["concat", "none"], "block": ["plain", "residual"]}) == ("odd", True)


def test_settings_that_differ_are_told_leaf_by_leaf(study: Analysis) -> None:
    sides = [{"flip": flip, "scale": [1.0, 1.0]} for flip in (True, False)]
    run = {**study.frames.run, "variants": {"odd": {"differs": {"train.augment": sides}}}}
    odd = replace(study, frames=replace(study.frames, run=run))
    assert differs_text(odd, "odd") == "train.augment.flip: yes → no"
    assert (component(odd, "odd").name, component(odd, "odd").of_variant) == ("flip", False)


def test_a_variant_of_matched_size_is_called_by_its_own_name(study: Analysis) -> None:
    run = {**study.frames.run, "variants": {"wide": {"differs": {"width": [8, 8.0782]}}}}
    match = VariantSpec.model_validate({"match": {"to": "attention", "by": "parameters"}})
    spec = study.frames.study.model_copy(update={"variants": {"wide": match}})
    wide = replace(study, frames=replace(study.frames, run=run, study=spec))
    assert component(wide, "wide") == Component("wide", False, True, whole=True)
    assert differs_text(wide, "wide") == "width: 8 → 8.0782; as many parameters as attention"


def test_two_crossed_factors_are_told_by_their_interaction(study: Analysis) -> None:
    row: dict[str, Any] = {"factor_a": "skip", "factor_b": "block", "level_a0": "concat", "level_a1": "none"}
    row |= {"level_b0": "plain", "level_b1": "residual", "effect_b0": -0.114, "effect_b1": -0.186}
    row |= {"estimate": -0.072, "low": -0.116, "high": -0.029, "decision": "antagonistic"}
    assert headline(replace(study, interactions=pd.DataFrame([row]))).endswith(
        "Skip connections help by 11.4 points with plain blocks and by 18.6 with residual blocks; the difference, +7.2 "
        "[+2.9, +11.6], is decided."
    )


def test_no_component_is_credited_where_a_side_learned_nothing(study: Analysis) -> None:
    blind = changed(study, untrained=True, blind_score=0.052)
    assert headline(blind) == (
        "Nothing can be said about skip connections: at least one side scores no higher than a prediction "
        "made without looking at the image (5.2 % mIoU)."
    )
    assert verdict_rows(blind)[0][1].verdict == "untrained" and verdict_rows(blind)[0][1].is_open
    assert cards(blind)[0].answer == "0 of 1 comparison decided"


def test_the_questions_have_answers(study: Analysis) -> None:
    shown = {card.question: card for card in cards(study)}
    assert list(shown) == ["How sure?", "At which rate?", "At what cost?"]
    assert shown["How sure?"].answer == "1 of 1 comparison decided"
    assert shown["At which rate?"].answer == "3e-4"
    # What having the component costs: the planted variant goes without it, at 0.90 times the parameters.
    speed = study.throughput.query("variant == 'noskip' and quantity == 'train_images_per_s'")["ratio"].iloc[0]
    assert shown["At what cost?"].answer == f"1.11× parameters, {1 / speed:.2f}× training speed"


def test_undecided_says_what_could_have_been_found_and_what_would_decide_it(study: Analysis) -> None:
    still = changed(study, decision="undecided", detectable=0.072, seeds_needed=9.0)
    card = next(card for card in cards(still) if card.question == "What would decide the rest?")
    assert card.answer == "9 fresh seeds per variant"
    assert "This study would have found differences of 7.2 points with a chance of 80 %." in card.more
    assert "The differences it saw would be decided by about 9 seeds (skip connections) per variant." in card.more
    assert card.more.endswith(" Run it again with -o confirm.seeds=9.")
    assert "to decide: about 9 seeds" in verdict_rows(still)[0][1].reach
    never = changed(study, decision="undecided", detectable=0.072, seeds_needed=float("inf"))
    card = next(card for card in cards(never) if "decide the rest" in card.question)
    assert card.answer == "No number of seeds within reach" and "more than 100 seeds" in card.more
    assert "Run it again" not in card.more


def test_fresh_seeds_decide_where_they_were_run(confirmed: Analysis) -> None:
    row = confirmed.contrasts[confirmed.contrasts["primary"]].iloc[0]
    assert "6 fresh seeds" in next(card.more for card in cards(confirmed) if card.question == "How sure?")
    rows = {one.variant: one for one in verdict_rows(confirmed)[0]}
    assert rows["noskip"].miou.split(" ± ")[0] == f"{100 * row['left']:.1f}"
    # The baseline's score is of all its fresh seeds, as in results.csv, not of those of the contrast that ended first.
    base: Any = confirmed.variants.set_index("variant").loc["unet"]
    shown = verdict_rows(changed(confirmed, right=0.9))[0][0]
    assert shown.miou == percent_spread(base["test_mean"], base["test_low"], base["test_high"])
    assert not [text for text in notes(confirmed) if "Optimistic" in text or "Few seeds" in text]
    still = changed(confirmed, decision="undecided", detectable=0.072, seeds_needed=14.0)
    assert cards(still)[-1].more.endswith(" -o confirm.seeds=14.")
    looks = ConfirmSpec(until="decided", looks=[4, 8])
    declared = still.frames.study.model_copy(update={"confirm": looks})
    still = replace(still, frames=replace(still.frames, study=declared))
    assert cards(still)[-1].more.endswith(" -o confirm.looks=[4,8,14] -o confirm.at_most=14.")


def test_few_groups_and_undeclared_sequences_are_said(study: Analysis) -> None:
    few = changed(study, conditional=True, groups=3)
    assert any("3 groups, too few to stand for others" in text for text in notes(few))
    warned = changed(study, order_warning=True)
    assert any("seem to be sequences" in text for text in notes(warned))


def test_what_limits_the_study_is_said(study: Analysis) -> None:
    said = " ".join(notes(study))
    assert "Optimistic: every variant is scored by the same runs that chose its rate" in said
    assert "Few seeds: only 3 per variant" in said
    assert "synthetic" in said
    assert "24 synthetic images" in subject(study)[0]
    classes = study.classes.assign(iou=study.classes["iou"].where(study.classes["class"] != "fence", 0.0))
    run = {**study.frames.run, "decisions": {"precision": {"value": "bfloat16"}}}
    said = " ".join(notes(replace(study, classes=classes, frames=replace(study.frames, run=run))))
    assert "1 of 5 classes was learned by no variant (fence): the mean IoU compares only the others" in said
    assert "The arithmetic was bfloat16" in said


def test_the_device_that_computed_is_named_not_the_machine_around_it(study: Analysis) -> None:
    gpu = {"decisions": {"device": {"value": "NVIDIA H200"}}, "device": {"cpu": "Some CPU", "gpus": ["NVIDIA H200"]}}
    run = {**study.frames.run, **gpu}
    assert subject(replace(study, frames=replace(study.frames, run=run)))[-1].endswith("finished, on NVIDIA H200.")


def test_under_convergence_is_said_where_it_outweighs_the_difference(study: Analysis) -> None:
    convergence = study.convergence.assign(verdict="under-converged", gain=0.25)
    said = next(text for text in notes(replace(study, convergence=convergence)) if "Under-converged" in text)
    assert "2 of 2 variants were still improving when the 12 epochs ended" in said
    assert "25.0 points of validation mIoU, more than the largest difference found" in said


def test_a_last_epoch_that_is_the_best_is_said_where_no_verdict_on_convergence_is(study: Analysis) -> None:
    trials = study.frames.trials.assign(best_epoch=study.frames.trials["epochs_run"])
    convergence = study.convergence.assign(verdict="inconclusive")
    changed = replace(study, convergence=convergence, frames=replace(study.frames, trials=trials))
    assert any("in 17 of 17 trials the last epoch was the best" in text for text in notes(changed))


def test_speeds_of_a_busy_machine_are_marked(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)
    assert not busy(analysis)
    profile = json.loads((two / "profile.json").read_text())
    profile["variants"]["unet"]["train_images_per_s"][0] *= 0.5
    disturbed = replace(analysis, frames=replace(analysis.frames, profile=profile))
    assert "busy" in busy(disturbed)
    assert verdict_rows(disturbed)[0][1].speed.endswith("×*")
    assert any("no measure of cost" in text for text in notes(disturbed))


def test_a_variant_that_differs_in_several_settings_is_judged_as_a_whole_by_its_own_name() -> None:
    whole = Component("noskip_wide", False, True, whole=True)
    assert [whole.does(verb) for verb in ("help", "hurt", "make")] == [
        f"the variant noskip_wide {said}" for said in ("is better", "is worse", "makes")
    ]
    assert Component("skip connections", True, False).does("help") == "skip connections help"


def test_an_unfinished_study_of_one_seed_is_not_said_to_have_chosen_or_decided(
    tmp_path: Path, analysed: Analysed
) -> None:
    waiting = (("noskip", 1e-3, 0), ("noskip", 1e-4, 0))
    path = plant(
        tmp_path / "half", variants=("unet", "noskip"), lrs=(1e-3, 3e-4, 1e-4), seeds=1, epochs=4, images=4,
        truth=Truth(missing=waiting), predictions=False,
    )  # fmt: skip
    document = json.loads((path / "run.json").read_text())
    document["decisions"] = {"device": {"value": "NVIDIA H200", "why": "run.devices"}}
    (path / "run.json").write_text(json.dumps(document))
    analysis = analysed(path)
    assert headline(analysis).startswith("Nothing can be decided yet from one seed a variant. Seen: skip connections")
    assert subject(analysis)[-1].endswith("4 of 6 trials finished, on NVIDIA H200.")
    at, decide = (next(card for card in cards(analysis) if card.question == q) for q in ASKED)
    assert "No other rate has a result yet for noskip." in at.more
    assert "finishes the other 2 trials. Run it again with -o confirm.seeds=5: that trains" in decide.more
    assert subject(analysis)[-1].startswith("Runs planned: each variant with 1 seed at each of 3 learning rates")
    said = notes(changed(analysis, conditional=True, groups=2))
    assert any("No rate was chosen for noskip" in text for text in said)
    assert any("Optimistic: unet is scored by the same runs that chose its rate" in text for text in said)
    assert any("too few to stand for others: what is found holds for these" in text for text in said)
    (unet, noskip), scale = verdict_rows(analysis)
    assert noskip.edge == "no other has a result yet" and "provisional" in noskip.flags and not unet.flags
    assert not noskip.reach and scale.label.startswith("Δ, ")
    caption = make_page(analysis, [], []).verdict_note
    assert "did best on validation (noskip: the only one with a result)" in caption and "dashed" not in caption
    assert "Each cell is planned with 1 seed (6 trials; 2 not yet run)" in methods_paragraph(analysis)
    # Claims name the least that their method needs, which is not what decides the study.
    claimed = analysis.frames.study.model_copy(update={"claims": [ClaimSpec.model_validate(CLAIMS[0])]})
    card = cards(replace(analysis, frames=replace(analysis.frames, study=claimed)))[-1]
    assert "only the least that the method of that claim can judge by" in card.more
    assert "beside a claim" not in decide.more
    # The tables mark the same variants by the same rules.
    table, edge = results(analysis), "*" if unet.edge else ""
    assert list(table.frame["chosen"]) == [f"{unet.at}{edge}", f"{noskip.at}†"]
    assert list(table.frame["decision_text"]) == ["baseline", "undecided (provisional)"]
    assert "†: no other has a result yet." in table.rule and "± is half" not in table.rule


def test_a_baseline_without_all_its_trials_makes_every_verdict_provisional(study: Analysis) -> None:
    variants = study.variants.assign(provisional=study.variants["variant"] == "unet")
    waiting = replace(changed(study, provisional=True), variants=variants)
    assert [row.flags for row in verdict_rows(waiting)[0]] == [("provisional",), ("provisional",)]
    assert all("(provisional)" in text for text in results(waiting).frame["decision_text"])


def test_where_no_rate_was_chosen_nothing_is_optimistic(study: Analysis) -> None:
    first = study.cells["setting"] == study.cells["setting"].iloc[0]
    alone = replace(study, cells=study.cells.assign(n=study.cells["n"].where(first, 0)))
    said = " ".join(notes(alone))
    assert "No rate was chosen for unet and noskip" in said and "Optimistic" not in said
    assert "(every variant: the only one with a result)" in make_page(alone, [], []).verdict_note
