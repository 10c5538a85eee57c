"""What a reader must know before the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablate.analysis.analyse import analyse
from ablate.analysis.frames import load_results
from ablate.report.words.notes import notes
from tests.planted import plant

REASON = ' "reason"'


def test_trials_that_were_not_computed_alike_are_noted(tmp_path: Path) -> None:
    path = plant(tmp_path, variants=("unet", "noskip"), lrs=(1e-3,), seeds=2, epochs=6, images=4, predictions=False)
    for number, record in enumerate(sorted(path.glob("trials/*/record.json"))):
        provenance = f'"provenance": {{"versions": {{"torch": "2.{12 + number % 2}"}}}}, "reason"'
        text = record.read_text(encoding="utf-8")
        before, _, after = text.partition(' "provenance"')
        record.write_text(f"{before} {provenance}{after.partition(REASON)[2]}", encoding="utf-8")
    said = [note for note in notes(analyse(load_results(path))) if "computed alike" in note]
    assert said == [
        "The trials were not all computed alike, which alone can make numbers differ: PyTorch (2.12, 2.13)."
    ]


def test_trials_without_predictions_are_noted_where_others_have_them(tmp_path: Path) -> None:
    path = plant(tmp_path, variants=("unet", "noskip"), lrs=(3e-4,), seeds=2, epochs=6, images=4)

    def noted() -> list[str]:
        return [note for note in notes(analyse(load_results(path))) if "stored predictions" in note]

    assert noted() == []
    first, *others = sorted(path.glob("trials/*/predictions.zip"))
    first.unlink()
    assert [note[:45] for note in noted()] == ["1 of 4 trials has no stored predictions (a pu"]
    for file in others:
        file.unlink()
    assert noted() == []


@pytest.mark.fault(35, "control characters of class and image names are escaped in tables, figures and page")
def test_names_of_a_file_have_no_control_characters(tmp_path: Path) -> None:
    path = plant(tmp_path, variants=("unet",), lrs=(1e-3,), seeds=2, epochs=6, images=4, predictions=False)
    index = json.loads((path / "test" / "index.json").read_text(encoding="utf-8"))
    index["classes"][0], index["names"][0] = "sky\x1b[2J", "one\x07"
    (path / "test" / "index.json").write_text(json.dumps(index), encoding="utf-8")
    run = json.loads((path / "run.json").read_text(encoding="utf-8"))
    run["data"]["absent"] = {"val": ["sky\x1b[2J"]}
    (path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    analysis = analyse(load_results(path))
    assert analysis.frames.class_names[0] == "sky\\x1b[2J" and analysis.frames.names["test"][0] == "one\\x07"
    assert any("no pixel of sky\\x1b[2J" in note for note in notes(analysis))
