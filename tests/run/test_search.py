"""A search: proposals that depend on the records alone, the same budget for all, and the whole of it by the command."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from ablate.analysis.analyse import analyse
from ablate.analysis.frames import load_results
from ablate.claims.verdicts import judge
from ablate.errors import StudyError
from ablate.records.store import Results, publish_record, to_json
from ablate.report import rules
from ablate.report.words.notes import notes
from ablate.run.manifest import plan_entry
from ablate.run.search import further_rounds, opening
from ablate.study.study import Study
from ablate.study.trial import Trial
from tests.run.conftest import STUDY, Command
from tests.run.test_optuna_mirror import record_of, study_in

SPACE = "{lr: {low: 1e-5, high: 1e-1, log: true}, batch_size: {low: 2, high: 9}, optimizer: {choices: [adam, sgd]}}"
SEARCH = STUDY.replace(
    "grid: {lr: [1e-2, 1e-3]}", f"search: {{trials: 7, sampler: tpe, space: {SPACE}, seed: 3}}"
).replace("seeds: 1", "seeds: 2")


CLAIMS = """\
claims:
  - {id: some, metric: val_loss, variant: any, op: "<", value: 9, where: {lr: ">=1e-3"}, quantifier: any}
  - {id: none, metric: val_loss, variant: narrow, op: "<", value: 9, where: {lr: ">0.0999"}}
"""


def score(trial: Trial) -> float:
    """A landscape with one best rate for each variant."""
    best = -2.0 if trial.variant == "wide" else -3.0
    return 0.8 - 0.1 * (math.log10(trial.train["lr"]) - best) ** 2 - 0.01 * trial.seed


def finish(results: Results, trials: list[Trial], status: str = "complete") -> None:
    for trial in trials:
        folder = results.trial(trial.name)
        folder.path.mkdir(parents=True, exist_ok=True)
        publish_record(folder, record_of(trial, status, score(trial)))


def enter(results: Results, study: Study, plan: list[Trial]) -> None:
    search = study.spec.search.identity()  # type: ignore[union-attr]
    results.path.mkdir(parents=True, exist_ok=True)
    results.run.write_bytes(to_json({"plan": [plan_entry(trial) for trial in plan], "search": search}))


def whole(study: Study, folder: Path, stop_after: int = 10**6) -> list[Trial]:
    """Run a search as the driver does, for so many rounds at most; going on from what `folder` holds."""
    results = Results(folder)
    plan = opening(study, results)
    enter(results, study, plan)
    finish(results, plan)
    for done, trials in enumerate(further_rounds(study, results), start=2):
        plan += trials
        enter(results, study, plan)
        if done > stop_after:
            finish(results, trials[:1])  # killed in the middle of this round
            break
        finish(results, trials)
    return plan


def tried(plan: list[Trial]) -> dict[str, list[dict[str, Any]]]:
    rounds: dict[str, list[dict[str, Any]]] = {}
    for trial in plan:
        mine = rounds.setdefault(trial.variant, [])
        if trial.settings not in mine:
            mine.append(trial.settings)
    return rounds


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_every_variant_tries_as_many_settings_within_the_space(tmp_path: Path, sampler: str) -> None:
    plan = whole(study_in(tmp_path, SEARCH.replace("tpe", sampler)), tmp_path / "r")
    rounds = tried(plan)
    assert {variant: len(settings) for variant, settings in rounds.items()} == {"narrow": 7, "wide": 7}
    assert len(plan) == len({trial.key for trial in plan}) == 2 * 7 * 2
    assert rounds["narrow"] != rounds["wide"], "a sampler of its own for each variant"
    for settings in (one for mine in rounds.values() for one in mine):
        assert 1e-5 <= settings["lr"] <= 1e-1 and float(f"{settings['lr']:.3g}") == settings["lr"]
        assert isinstance(settings["batch_size"], int) and 2 <= settings["batch_size"] <= 9
        assert settings["optimizer"] in ("adam", "sgd")
    assert len({trial.train["lr"] for trial in plan}) > 10, "the settings reach what is trained"


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
@pytest.mark.parametrize("stop", [1, 3, 6])
def test_a_search_that_was_stopped_proposes_what_an_undisturbed_one_does(
    tmp_path: Path, sampler: str, stop: int
) -> None:
    study = study_in(tmp_path, SEARCH.replace("tpe", sampler))
    expected = tried(whole(study, tmp_path / "whole"))
    whole(study, tmp_path / "r", stop_after=stop)
    assert tried(whole(study, tmp_path / "r")) == expected


def test_the_sampler_learns_from_the_records(tmp_path: Path) -> None:
    study = study_in(tmp_path, SEARCH.replace("trials: 7", "trials: 25"))
    for variant, rounds in tried(whole(study, tmp_path / "r")).items():
        best = -2.0 if variant == "wide" else -3.0
        away = [abs(math.log10(settings["lr"]) - best) for settings in rounds]
        assert sum(away[-10:]) < 0.8 * sum(away[:10]), variant


def test_a_larger_budget_goes_on_and_another_space_begins_anew(tmp_path: Path) -> None:
    first = tried(whole(study_in(tmp_path, SEARCH), tmp_path / "r"))
    more = study_in(tmp_path, SEARCH.replace("trials: 7", "trials: 9"))
    longer = tried(whole(more, tmp_path / "r"))
    assert all(longer[variant][:7] == first[variant] and len(longer[variant]) == 9 for variant in first)
    other = study_in(tmp_path, SEARCH.replace("seed: 3", "seed: 4"))
    assert tried(opening(other, Results(tmp_path / "r"))) != {v: rounds[:1] for v, rounds in first.items()}
    assert len(opening(other, Results(tmp_path / "r"))) == 4


def test_settings_of_the_plan_stand_where_the_sampler_would_propose_others(tmp_path: Path) -> None:
    study = study_in(tmp_path, SEARCH)
    plan = whole(study, tmp_path / "r", stop_after=2)
    moved = [
        trial
        for trial in plan[:4]
        for trial in [study.trial(trial.variant, {**trial.settings, "lr": 0.0123}, trial.seed)]
    ]
    results = Results(tmp_path / "moved")
    enter(results, study, moved)
    finish(results, moved)
    after = tried(whole(study, tmp_path / "moved"))
    assert all(rounds[0]["lr"] == 0.0123 and len(rounds) == 7 for rounds in after.values())


def test_failed_and_diverged_trials_are_told_as_what_they_are(tmp_path: Path) -> None:
    study = study_in(tmp_path, SEARCH)
    results = Results(tmp_path / "r")
    plan = opening(study, results)
    enter(results, study, plan)
    finish(results, [trial for trial in plan if trial.variant == "narrow"], "failed")
    finish(results, [trial for trial in plan if trial.variant == "wide"], "diverged")
    batch = next(further_rounds(study, results))
    assert {trial.variant for trial in batch} == {"narrow", "wide"}
    # A variant with a trial that has no record waits; the other goes on without it.
    enter(results, study, plan + batch)
    finish(results, [trial for trial in batch if trial.variant == "wide"])
    assert {trial.variant for trial in next(further_rounds(study, results))} == {"wide"}


def test_a_small_space_is_exhausted_not_repeated(tmp_path: Path) -> None:
    text = SEARCH.replace(SPACE, "{optimizer: {choices: [adam, sgd, adamw]}}")
    rounds = tried(whole(study_in(tmp_path, text), tmp_path / "r"))
    assert all(len(mine) == 3 for mine in rounds.values())


def test_a_search_is_not_extended(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="search: expected a grid, got a search"):
        study_in(tmp_path, SEARCH).extended(2)


def test_by_the_command_stopped_and_resumed_with_report_and_confirmation(command: Command) -> None:
    # Not in the order of the alphabet, in which the plan is kept.
    space = "{lr: {low: 1e-4, high: 1e-1, log: true}, batch_size: {low: 2, high: 4}}"
    text = SEARCH.replace("trials: 7", "trials: 8").replace(SPACE, space)
    text = text.replace("epochs: 3", "epochs: 1").replace("seeds: 2", "seeds: 1") + "confirm: {seeds: 1}\n" + CLAIMS
    command.study(text)
    done = command.run()
    assert done.returncode == 0, done.stderr + done.stdout
    records = command.records()
    main = {name: record for name, record in records.items() if record["role"] == "main"}
    assert len(main) == 2 * 8 and len(records) - len(main) == 2
    frames = load_results(command.results)
    analysis = analyse(frames)
    assert analysis.variants["n_planned"].tolist() == [1, 1]
    assert set(analysis.contrasts["kind"]) == {"own_best", "confirmed"}
    assert len(analysis.budget) == 2 * 8 and "settings that the search tried" in rules.budget(analysis)
    assert any("searched settings of its own (tpe)" in note for note in notes(analysis))
    claims = judge(frames, analysis).set_index("id")
    wide = frames.trials.query("role == 'main' and lr >= 1e-3")
    assert claims["comparisons"]["some"] == len(wide), "each variant at the settings that it tried"
    assert claims["reason"]["none"]
    assert "to run" not in command.run().stdout, "a second call has nothing to do"

    # Half of it gone, as if the run had been stopped there: the same trials come back, with the same numbers.
    lost = [entry["name"] for entry in frames.run["plan"]][8:]
    for name in lost:
        for file in (command.results / "trials" / name).iterdir():
            file.unlink()
    again = command.run()
    assert again.returncode == 0, again.stderr
    assert command.records() == records
