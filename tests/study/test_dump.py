"""A resolved study read back is the same study."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ablate.study.reader import dump_study, read_study
from tests.conftest import ROOT
from tests.study.study_files import GOOD, read, write

FACTORS = GOOD.replace(
    "variants:\n  unet: {}\n  noskip: {skip: none}\n", "factors: {skip: [concat, none], block: [plain, residual]}\n"
)
TEXTS = {
    "small": GOOD,
    "two phases": GOOD.replace("seeds: 2", "screen: {more: 3}\nconfirm: {seeds: 6}"),
    "until decided": GOOD.replace("seeds: 2", "screen: {}\nconfirm: {until: decided, looks: [4, 8, 12], at_most: 8}"),
    "control and confound": GOOD.replace(
        "unet: {}", "unet:\n  again: {control: true}\n  slow: {train: {warmup_epochs: 1, augment: {flip: false}}}"
    ),
    "factors": FACTORS + "design: grid\nexclude: [{skip: none, lr: 1e-3}]\nvariants: {again: {control: true}}\n",
    "leave one out": FACTORS + "design: leave_one_out\n",
    "search": GOOD.replace(
        "grid: {lr: [1e-3, 3e-4]}",
        "search: {space: {lr: {low: 1e-5, high: 1e-2, log: true}, loss: {choices: [dice, cross_entropy]}}}",
    ),
    "axes": GOOD.replace("{lr: [1e-3, 3e-4]}", "{train.lr: [1e-3], model.width: [4, 8], crop: [null, [16, 16]]}"),
    "claims": GOOD + "claims: [{metric: rise, variant: any, op: '>', value: 1.5, where: {train.lr: '>=5e-4'}}]\n",
    "a seed list and all the rest": GOOD.replace("seeds: 2", "seeds: [9, 4]")
    + "confirm: {seeds: 2}\nmeasure: {rope: 0.01}\nrun: {devices: [cpu], reuse: ['no', '1e-3', 'a b']}\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_reading_the_dump_gives_the_same_study(name: str, tmp_path: Path) -> None:
    study = read(tmp_path, TEXTS[name])
    text = dump_study(study)
    again = read(tmp_path, text)
    assert again.trials() == study.trials()
    assert again.spec == study.spec
    assert again.variants == study.variants
    assert dump_study(again) == text


def test_the_dump_says_what_was_left_to_defaults(tmp_path: Path) -> None:
    document = yaml.safe_load(dump_study(read(tmp_path)))
    assert document["model"]["norm"] == "batch"
    assert document["data"]["seed"] == 0
    assert document["train"]["optimizer"] == "adam"
    assert document["seeds"] == [0, 1]
    assert document["baseline"] == "unet"
    assert document["variants"] == {"unet": {}, "noskip": {"skip": "none"}}


def test_text_that_looks_like_something_else_stays_text(tmp_path: Path) -> None:
    odd = ["no", "1e-3", "017", "1:30", "null", "true", "0x1F", "~", " a ", "é", "a: b", "- c", "#d", ""]
    study = read(tmp_path, GOOD + "run: {reuse: [" + ", ".join(f"'{text}'" for text in odd) + "]}\n")
    assert read(tmp_path, dump_study(study)).spec.run.reuse == odd


def test_a_report_reads_a_dump_without_importing_torch(tmp_path: Path) -> None:
    path = write(tmp_path, dump_study(read(tmp_path)), "study.yaml")
    code = (
        "import sys\n"
        "from ablate.study.reader import read_study\n"
        f"study = read_study({str(path)!r}, check_components=False)\n"
        "assert 'torch' not in sys.modules and 'optuna' not in sys.modules\n"
        "print([(trial.variant, trial.settings, trial.seed, trial.model) for trial in study.trials()])\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str([(t.variant, t.settings, t.seed, t.model) for t in read_study(path).trials()])
