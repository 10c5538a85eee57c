"""`measure.native` from the command: what a folder holds, and that two resolutions never share one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablate.analysis.analyse import analyse
from ablate.analysis.frames import load_results
from ablate.records.images import unpack_maps
from ablate.report import rules
from tests.data.pictures import cells, save
from tests.run.conftest import Command

STUDY = """\
study: tiny
data:
  name: folder
  root: set
  images: image/*.png
  masks: label/*.png
  classes: {membrane: 0, cell: 255}
  size: [16, 16]
model: {name: two_convolutions}
variants: {narrow: {}, wide: {width: 8}}
grid: {lr: [1e-2]}
seeds: 2
train: {epochs: 2, batch_size: 4, augment: {flip: false}}
measure: {gradients: 0, profile: false, native: NATIVE, resamples: 100}
run: {checkpoint_every: 0, workers: 1, threads: 1}
track: {wandb: disabled}
"""


def text(native: bool) -> str:
    return STUDY.replace("NATIVE", str(native).lower())


@pytest.fixture
def folder(command: Command) -> Path:
    for index in range(12):
        image, mask = cells(index, (24, 32) if index < 2 else (48, 40))
        save(command.folder / "set" / "image" / f"{index:02d}.png", image)
        save(command.folder / "set" / "label" / f"{index:02d}.png", mask)
    return command.folder


def test_native_scores_end_to_end_and_never_mixed(command: Command, folder: Path) -> None:
    cache = {"ABLATE_CACHE": str(folder / "cache")}
    command.study(text(True))
    done = command.run(**cache)
    assert done.returncode == 0, done.stderr + done.stdout
    records = command.records()
    assert {record["resolution"] for record in records.values()} == {"native"}
    target = unpack_maps(command.results / "test" / "targets.zip")
    frames = load_results(command.results)
    sizes = [labels.shape for labels in target]
    assert set(sizes) == {(24, 32), (48, 40)}
    for key in frames.trials["key"]:
        assert [labels.shape for labels in frames.preds(key)] == sizes
        counted = frames.counts(key)["test"][..., [0, 2]].sum((1, 2))
        assert counted.tolist() == [height * width for height, width in sizes]
        assert frames.counts(key)["val"][..., [0, 2]].sum((1, 2)).max() == 16 * 16  # val chooses at the size trained at
    analysis = analyse(frames)
    assert len(analysis.detail) and "the masks' own size" in rules.detail(analysis)
    assert "Test scores at the masks' own size" in rules.contrasts(analysis)

    # The other resolution is refused in one line before anything is written, and the folder stays as it was.
    before = (command.results / "run.json").read_bytes()
    command.study(text(False))
    done = command.run(**cache)
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        "4 trials here were scored at the masks' own size, measure.native asks for data.size; write measure.native: "
        "true, or run into another folder with --out"
    )
    assert (command.results / "run.json").read_bytes() == before

    # Nor are trials of the other resolution taken over from another folder, or read as if they were of this one.
    command.study(text(False).replace("run: {", "run: {reuse: [results/tiny], "))
    done = command.run("--out", "elsewhere", **cache)
    assert done.returncode == 0, done.stderr
    other = load_results(folder / "elsewhere")
    assert {
        json.loads(path.read_bytes())["resolution"] for path in (folder / "elsewhere").glob("trials/*/record.json")
    } == {"trained"}
    assert other.trials["key"].tolist() == frames.trials["key"].tolist()
    study = (folder / "elsewhere" / "study.resolved.yaml").read_text()
    (folder / "elsewhere" / "study.resolved.yaml").write_text(study.replace("native: false", "native: true"))
    mixed = load_results(folder / "elsewhere").trials
    assert mixed["status"].eq("missing").all()
    assert mixed["reason"].iloc[0] == "complete, but scored at the trained size, this study at the native one"
