"""A study of pixels that bear several classes, from the masks to the page: every score is of each class by itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ablate
from ablate.commands.predict import predict
from ablate.records.images import unpack_maps
from ablate.records.store import Results
from tests.conftest import missing
from tests.data.pictures import save_shapes
from tests.run.conftest import Command

STUDY = """\
study: several
data: {name: folder, root: ., images: image/*.png, masks: "files/{stem}_{class}.png", classes: [disc, box]}
model: {name: unet, width: 4, depth: 2}
variants: {attention: {skip: attention}, dice: {train: {loss: cross_entropy_dice}}}
seeds: 1
train: {lr: 1e-2, epochs: 3, batch_size: 4, class_weights: balanced, augment: {flip: true, scale: [0.8, 1.2]}}
claims: [{metric: iou/box, left: dice, right: attention, op: ">"}]
measure: {profile: false, gradients: 0, resamples: 200}
run: {workers: 1, threads: 1}
track: {wandb: disabled}
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The study of shapes, run."""
    made = Command(tmp_path_factory.mktemp("several"))
    save_shapes(made.folder, 20)
    made.study(STUDY)
    done = made("run", "study.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture(scope="module")
def results(command: Command) -> Path:
    return command.folder / "results" / "several"


def test_counts_are_those_of_the_bits(results: Path) -> None:
    try:
        import torch
        from torchmetrics.classification import MultilabelJaccardIndex
    except ModuleNotFoundError:
        missing("torchmetrics is not installed")
    frames = ablate.load_results(results)
    target = np.asarray(frames.target)
    planes = np.stack([target >> label & 1 for label in range(2)], axis=1)
    assert set(np.unique(target)) == {0, 1, 2, 3}
    for row in frames.trials.to_dict("records"):
        found = np.stack([np.asarray(frames.preds(row["key"])) >> label & 1 for label in range(2)], axis=1)
        naive = [(found & planes).sum((2, 3)), (found & ~planes & 1).sum((2, 3)), (~found & 1 & planes).sum((2, 3))]
        np.testing.assert_array_equal(frames.counts(row["key"])["test"], np.stack(naive, axis=-1))
        jaccard = MultilabelJaccardIndex(2)(torch.from_numpy(found), torch.from_numpy(planes))
        assert row["test_mean_iou"] == pytest.approx(float(jaccard), abs=1e-6)
        assert np.isnan(row["test_pixel_accuracy"]) and "several classes" in row["missing"]["test_pixel_accuracy"]
    assert frames.trials["test_cross_entropy"].notna().all()  # the same for both losses


def test_the_page_says_what_does_not_belong(command: Command, results: Path) -> None:
    done = command("report", "results/several")
    assert done.returncode == 0, done.stderr
    page = (results / "report.html").read_text()
    assert "each was trained and judged by its own sigmoid" in page
    assert "boundaries and thin structures are those of maps in which a pixel bears one class" in page
    assert "Pixel accuracy" not in page and not (results / "figures" / "confusion.png").exists()
    assert (results / "figures" / "panels.png").exists()
    analysis = ablate.analyse(ablate.load_results(results))
    everywhere = [float((np.asarray(analysis.frames.target) >> label & 1).mean()) for label in range(2)]
    assert analysis.cells["blind_score"].iloc[0] == pytest.approx(np.mean(everywhere))
    assert command("verify", "results/several").returncode == 0


def test_predict_writes_a_mask_a_class(results: Path, tmp_path: Path) -> None:
    images = results.parents[1] / "image"
    _, count, _ = predict(Results(results), [images], tmp_path, probabilities=True)
    assert count == 20
    for index, name in enumerate(("disc", "box")):
        with Image.open(tmp_path / f"masks/{index}-{name}/03.png") as picture:
            mask = np.asarray(picture)
        shares = np.load(tmp_path / "probabilities/03.npz")["probabilities"].astype(float)
        assert set(np.unique(mask)) <= {0, 255} and ((shares[index] > 0.5) == (mask > 0)).mean() > 0.99


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train.loss=focal", "train.loss: this loss knows one class a pixel, while pixels of this data set may bear"),
        ("claims=[{metric: thin_recall, left: dice, right: attention, op: '>'}]", "claims[0].metric: 'thin_recall' is"),
    ],
)
def test_what_does_not_belong_is_refused_in_one_line(command: Command, words: str, said: str) -> None:
    done = command("check", "study.yaml", "-o", words)
    assert done.returncode == 2 and said in done.stderr, done.stdout + done.stderr


def test_records_say_that_the_network_is_multilabel(results: Path) -> None:
    cards = [json.loads(path.read_bytes()) for path in results.glob("trials/*/best.json")]
    assert cards and all(card["multilabel"] for card in cards)
    assert len(unpack_maps(results / "test" / "targets.zip")) == 3
