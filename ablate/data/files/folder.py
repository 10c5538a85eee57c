"""Any folder of images and masks as a data set: paired by patterns, split by a rule, labels by their stored values."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from ablate.data.files.assemble import Recipe, assemble
from ablate.data.dataset import SPLITS, Dataset
from ablate.data.files.findings import Findings, existing_root
from ablate.data.files.labels import read_labels
from ablate.data.files.pairing import check_pattern, pair_up
from ablate.data.files.sources import Pair, check_groups
from ablate.data.files.splitting import Folders, Lists, Rule, deal, group_of, pick, read_group, read_split

Side = Annotated[int, Field(ge=8, le=8192)]


def folder(
    *,
    root: str,
    images: str,
    masks: str,
    classes: dict[str, Any] | list[str],
    ignore: list[Any] = [],  # noqa: B006 - a default that a study file can say; never changed
    size: tuple[Side, Side] | None = None,
    split: dict[str, Any] | None = None,
    group: str | None = None,
    channels: Literal["auto", 1, 3] = "auto",
    window: tuple[float, float] | None = None,
    palette: dict[str, Any] | None = None,
    base: Path,
) -> Dataset:
    """Images and masks under the folder `root` (relative to the study file), in PNG, JPEG (images only), TIFF, ...

    - `images`: a glob such as ``image/*.png``; `masks`: a glob (paired by name) or a pattern such as
      ``label/{stem}_mask.png``, also with ``{parent}``, the image's folder. With ``{split}`` in a pattern the folders
      of `split` are put there; otherwise they are folders below the root in which the patterns hold.
    - `classes`: names to what masks store: a value 0..65535, a list of values, a colour ("#800000" or [128, 0, 0]) or a
      list of colours; three numbers are a colour where every class has three. A list of names means 0, 1, ...
      Palette pictures count by index, or by colour where classes are colours.
    - `ignore`: stored values or colours that are not scored. A label that neither names is an error.
    - `size`: (height, width) to resize to, images bilinear with antialiasing, masks nearest; None keeps the one size
      that all images have.
    - `split`: see `ablate.data.splitting.read_split`; by default 0.7 / 0.15 / 0.15 by seed 0.
    - `group`: a regular expression that finds the sequence or patient in a file's name (in its path where it contains
      a "/"); a group is never in two splits.
    - `channels`: 1 or 3; "auto" is 3 where any image is in colour.
    - `window`: the stored values shown as black and white; by default 0..255, and for 16-bit images the 0.1 % and
      99.9 % quantiles of all training pixels.
    - `palette`: class names to colours to draw them with.

    Raises `DataError` with every problem at once.
    """
    findings = Findings()
    place = existing_root(root, base)
    labels = read_labels(classes, ignore, palette, findings)
    rule = read_split(split, place, base, findings)
    pattern = read_group(group, findings)
    allowed = ("split",) if isinstance(rule, Folders) else ()
    check_pattern(images, "data.images", findings, allowed=allowed)
    check_pattern(masks, "data.masks", findings, allowed=("stem", "parent", *allowed))
    if window is not None and not (math.isfinite(window[0]) and math.isfinite(window[1]) and window[0] < window[1]):
        findings.say(f"expected two numbers, the smaller first, got {list(window)}", key="data.window")
    # What follows reads the folder by these settings: with wrong ones it would only find consequences.
    findings.stop()
    assert labels is not None and rule is not None
    found = _pairs(place, images, masks, rule, findings)
    every = [pair for pairs in found.values() for pair in pairs]
    names = _names([image for image, _ in every])
    made: dict[str, list[Pair]] = {name: [] for name in found}
    for split_name, pairs in found.items():
        for image, mask in pairs:
            owner = group_of(image, pattern, findings) if pattern else None
            made[split_name].append(Pair(image, mask, names[image], owner))
    splits = _dealt(made, rule, findings)
    if not every:
        findings.stop()
    check_groups(splits, findings)
    recipe = Recipe(labels, (size[0], size[1]) if size else None, channels, window)
    return assemble("folder", place, splits, recipe, findings)


def _pairs(root: Path, images: str, masks: str, rule: Rule, findings: Findings) -> dict[str, list[tuple[str, str]]]:
    """All pairs by split where the rule names folders, else under the one key "all"."""
    if not isinstance(rule, Folders):
        return {"all": pair_up(root, images, masks, findings)}
    found = {}
    for name in SPLITS:
        part = rule.names[name]
        if "{split}" in images or "{split}" in masks:
            patterns = [pattern.replace("{split}", part) for pattern in (images, masks)]
        else:
            patterns = [f"{part}/{images}", f"{part}/{masks}"]
        found[name] = pair_up(root, patterns[0], patterns[1], findings)
    return found


def _dealt(made: dict[str, list[Pair]], rule: Rule, findings: Findings) -> dict[str, list[Pair]]:
    if isinstance(rule, Folders):
        return made
    pairs = made["all"]
    if isinstance(rule, Lists):
        chosen = pick([pair.image for pair in pairs], rule, findings)
        return {name: [pairs[index] for index in chosen[name]] for name in SPLITS}
    dealt = deal([pair.image for pair in pairs], [pair.group for pair in pairs], rule, findings)
    return {name: [pair for pair, split in zip(pairs, dealt, strict=True) if split == name] for name in SPLITS}


def _names(images: list[str]) -> dict[str, str]:
    """A short name for each image: without folders where that is unique."""
    stems = Counter(PurePosixPath(image).stem for image in images)
    return {image: stem if stems[stem := PurePosixPath(image).stem] == 1 else image for image in images}
