"""`ablate predict`: the best network of a study on images of any size, as masks, overlays and probabilities."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ablate.analysis.load import read_spec
from ablate.data.dataset import Findings, as_bytes
from ablate.data.files.header import Unusable
from ablate.data.files.sources import ARRAYS, SUFFIXES, bands_of, list_files, of_bands, pair_up
from ablate.errors import DataError, Problem, ResultsError, nearest
from ablate.records.files import make_folder, refuse_links, write_atomic, writing
from ablate.records.paint import labelled
from ablate.records.record import Record
from ablate.records.store import Results, TrialFolder, to_json
from ablate.study.trial import level_text
from ablate.train.outcome import ModelCard
from ablate.train.predictor import Predictor


def best_trial(results: Results, variant: str | None) -> tuple[TrialFolder, Record]:
    """Return the trial whose network is used: of those that kept one, the best by validation, of `variant` if given."""
    records = {folder.name: folder for folder in results.folders() if folder.best.exists()}
    complete = [record for record in results.records()[0] if record.status == "complete"]
    by_key = {name.rpartition("-")[2]: folder for name, folder in records.items()}
    found = [(by_key[record.key[:8]], record) for record in complete if record.key[:8] in by_key]
    variants = {record.variant for _, record in found}
    if variant is not None and variant not in variants:
        cure = nearest(variant, variants) or "finish the study first"
        raise ResultsError(f"no trained network of the variant '{variant}'", file=str(results.path), cure=cure)
    if not found:
        cure = "they are there once a trial is finished, unless `run: {keep: none}` or `ablate clean --weights` is used"
        if results.is_packed():
            cure = "a published folder holds no networks: run the study"
        raise ResultsError("no trained network is kept here", file=str(results.path), cure=cure)
    mine = [item for item in found if variant in (None, item[1].variant)]
    return max(mine, key=lambda item: (item[1].metrics.get("val_mean_iou") or 0.0, item[1].key))


def image_files(given: Sequence[Path]) -> list[tuple[tuple[Path, ...], Path]]:
    """Return the images that are given or lie below the folders given, each with its name below `--out`.

    An image is one file, or one a band where a pattern such as ``new/*_{B02,B03}.tif`` is given in place of a file.
    """
    found: list[tuple[tuple[Path, ...], Path]] = []
    for path in given:
        if len(of_bands(str(path))) > 1 and not path.exists():
            found += _banded(path)
        elif path.is_dir():
            below = [path / name for name in list_files(path, "**/*")]
            inside = [item for item in below if item.suffix.lower() in SUFFIXES]
            inside = inside or [item for item in below if item.suffix == ARRAYS]  # which may lie beside pictures
            found += [((item,), item.relative_to(path)) for item in inside]
        else:
            found.append(((path,), Path(path.name)))
    if not found:
        cure = f"known are {', '.join((*SUFFIXES, ARRAYS))}"
        raise DataError("there is no image", file=", ".join(map(str, given)), cure=cure)
    twice = Counter(name.with_suffix("") for _, name in found)
    return [(files, name.with_suffix("") if twice[name.with_suffix("")] == 1 else name) for files, name in found]


def masks_below(results: Results, folder: Path) -> set[Path]:
    """Return the masks of images in `folder`, all or part of the study's own data: its patterns tell them apart."""
    try:
        settings = read_spec(results.study).data.settings
    except ResultsError:  # the networks say all that is needed
        return set()
    if not {"images", "masks"} <= settings.keys():
        return set()
    images, masks = (settings[key].replace("{split}", "*").split("/") for key in ("images", "masks"))
    classes = settings["classes"]  # names, or by them the words that stand for them in names of files
    words = [word for word in getattr(classes, "values", lambda: classes)() if isinstance(word, str)]
    found: set[Path] = set()
    for cut in range(min(len(images), len(masks))):  # the root itself, or a folder in it
        image, mask = of_bands("/".join(images[cut:]))[0], "/".join(masks[cut:])
        for own in [mask.replace("{class}", word) for word in words] if "{class}" in mask else [mask]:
            pairs = pair_up(folder, image, own, Findings())
            found |= {folder / one for path, one in pairs if one != path}  # without their folders both may be the same
    return found


def _banded(pattern: Path) -> list[tuple[tuple[Path, ...], Path]]:
    """Return the files of each image whose bands a pattern names, and the first of them below the pattern's folders."""
    fixed = list(itertools.takewhile(lambda part: not set(part) & set("*?[{"), pattern.parts))
    root, rest = Path(*fixed), "/".join(pattern.parts[len(fixed) :])
    firsts = list_files(root, of_bands(rest)[0])
    return [(tuple(root / path for path in bands_of(first, rest)), Path(first)) for first in firsts]


def predict(
    results: Results, images: Sequence[Path], out: Path, *, variant: str | None = None, probabilities: bool = False
) -> tuple[Record, int, int]:
    """Write masks, overlays and, where asked for, probabilities of `images` into `out`.

    Returns the trial, the number of images, and that of files left out because they are masks of these images.
    A mask is a palette PNG of class indices, a file of probabilities float16 (classes, height, width) as `.npz`. Where
    a pixel may bear several classes there is a mask of 0 and 255 for each, `masks/<index>-<class>/<name>.png`.
    `classes.json` says what the indices mean. Raises `DataError` with every image that could not be used, once all
    others are written.
    """
    import torch

    for path in images:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            what = f"lies in {path}, so that masks written there would be predicted the next time"
            raise ResultsError(what, file=str(out), cure="choose another folder with --out")
    masks = {mask for path in images if path.is_dir() for mask in masks_below(results, path)}
    every = image_files(images)
    found = [item for item in every if item[0][0] not in masks]
    folder, record = best_trial(results, variant)
    predictor = Predictor(folder, "cuda" if torch.cuda.is_available() else "cpu")
    card = predictor.card
    with writing(out):
        make_folder(out)
        for kind in ("masks", "overlays", "probabilities"):
            refuse_links(out / kind)
        write_atomic(out / "classes.json", to_json(classes_document(card)), lasting=False)
    problems = []
    for files, name in found:
        try:
            pixels, shares = predictor.of_files(files)
        except Unusable as error:
            problems.append(Problem(f"an image {error.fault}", file=str(files[0]), cure=error.cure))
            continue
        _write(out, name, pixels, shares, card, probabilities=probabilities)
    if problems:
        raise DataError(problems)
    return record, len(found), len(every) - len(found)


def classes_document(card: ModelCard) -> dict[str, object]:
    """Return the classes as JSON: index, name and colour of each."""
    rows = zip(card.classes, card.palette, strict=True)
    return {"classes": [{"index": index, "name": name, "colour": list(c)} for index, (name, c) in enumerate(rows)]}


def _write(
    out: Path, name: Path, pixels: np.ndarray, found: np.ndarray, card: ModelCard, *, probabilities: bool
) -> None:
    masks = {}
    if card.multilabel:
        planes = found > 0.5
        labels = np.packbits(planes, axis=0, bitorder="little")[0]
        for index, plane in enumerate(planes):
            folder = f"masks/{index}-{level_text(card.classes[index])}"
            masks[folder] = Image.fromarray(255 * plane.astype(np.uint8))
    else:
        labels = found.argmax(0).astype(np.uint8)
        masks["masks"] = Image.fromarray(labels)
        masks["masks"].putpalette([part for colour in card.palette for part in colour])
    shown = pixels if pixels.dtype == np.uint8 else _stretched(pixels, card.window or (0.0, 65_535.0))
    laid = labelled(as_bytes(shown), labels, card.palette, multilabel=card.multilabel)
    for kind, image in (*masks.items(), ("overlays", Image.fromarray(laid))):
        path = out / kind / f"{name}.png"
        make_folder(path.parent)
        image.save(path)
    if probabilities:
        path = out / "probabilities" / f"{name}.npz"
        make_folder(path.parent)
        np.savez_compressed(path, probabilities=found.astype(np.float16))


def _stretched(pixels: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    low, high = window
    return (255 * ((pixels.astype(np.float64) - low) / (high - low)).clip(0, 1)).astype(np.uint8)
