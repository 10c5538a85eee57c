"""What the contestants share: the metric, the arithmetic of a study, and what the peers refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.common import Images, confusion_matrix, load_work, mean_iou, study_flops

STUDY = """
study: small
data: {name: street, size: [32, 48], train: 17, val: 3, test: 5}
model: {name: unet, width: 4, depth: 1}
variants: {unet: {}}
grid: {lr: [1e-3]}
seeds: 1
train: {epochs: 2, batch_size: 8}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(STUDY, encoding="utf-8")
    return path


def test_mean_iou_of_known_counts() -> None:
    target = torch.tensor([[0, 0, 1, 255]])
    preds = torch.tensor([[0, 1, 1, 2]])
    # Class 0: 1 of 2, class 1: 1 of 2, class 2 is nowhere that counts.
    assert mean_iou(confusion_matrix(preds, target, 3)) == pytest.approx(0.5)


def test_flops_follow_from_the_layers(study: Path) -> None:
    # Multiply-adds of one image, layer by layer, at 32×48 and 16×24 pixels.
    fine, coarse = 32 * 48, 16 * 24
    first = fine * 9 * 3 * 4
    rest = fine * 9 * (4 * 4 + 8 * 4 + 4 * 4) + coarse * 9 * (4 * 8 + 8 * 8) + coarse * 4 * 8 * 4 + fine * 4 * 11
    forward = 2 * (first + rest)
    trained, validated, tested = 2 * 16, 2 * 3, 5  # the 17th image never fills a batch
    expected = (3 * forward - 2 * first) * trained + forward * (validated + tested)
    assert study_flops(load_work(study)) == expected


def test_images_are_normalised_by_the_training_split(study: Path) -> None:
    images = Images(load_work(study), "train")
    pixels = torch.stack([images[index][0] for index in range(len(images))])
    assert pixels.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert (pixels.std(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to another parent")
def test_processor_seconds_of_orphans_are_the_contestants() -> None:
    # As a fork server does: the parent is gone before its child has ended.
    orphan = "import time\nwhile time.process_time() < 0.6: pass"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}])"
    # In a process of its own, whose other children nobody waits for.
    measured = f"""
import subprocess, sys
from benchmarks.common import adopt_orphans, children_seconds
adopt_orphans()
before = children_seconds()
subprocess.run([sys.executable, "-c", {parent!r}], check=True)
print(children_seconds() - before)
"""
    done = subprocess.run([sys.executable, "-c", measured], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 0.6


@pytest.mark.parametrize("override", ["train.optimizer=sgd", "train.schedule=cosine", "train.augment.flip=false"])
def test_what_the_peers_do_not_train_is_refused(study: Path, override: str) -> None:
    with pytest.raises(ValueError, match="the peers train with"):
        load_work(study, [override])
