"""`ablate init`: look at a folder of images and masks, and write a commented study that runs as it is."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ablate.data.files.layout import find_group, find_layout
from ablate.data.files.survey import Survey, sums_of, survey
from ablate.errors import StudyError
from ablate.records.files import publish_once, writing
from ablate.study.jsonschema import json_schema
from ablate.study.names import ALLOWED
from ablate.wording import count_of

# The longest side that images are resized to: what a CPU trains at in minutes.
LONGEST_SIDE = 256
SCHEMA = "study.schema.json"
NOT_READY = "no study runs on this folder before these files are put right"
STEPS = 600  # of a trial, about
VALUES_SHOWN = 12
BITS = {"byte": "8 bit", "deep": "16 bit", "wide": "32 bit", "float": "floating point"}
Ask = Callable[[str, str], str]


def write_study(folder: Path, out: Path | None, *, ask: Ask | None = None) -> tuple[list[Path], list[str]]:
    """Write a study of the images in `folder` to `out`, by default <folder's name>.yaml here, and its schema beside it.

    Return the files that were written, the study first, and notes.

    `ask` (question, default) is asked for the names of classes that no file tells; None takes the defaults. Raises
    `StudyError` where the file is there already, `DataError` where nothing in the folder pairs up.
    """
    if folder.is_file():
        raise StudyError("is a file", file=str(folder), cure="unpack it where it is an archive, and name the folder")
    if not folder.is_dir():
        raise StudyError("there is no such folder", file=str(folder), cure="name the folder of the images")
    words = [part for part in folder.resolve().parts if part.lower() not in ("data", "train", "images", "/")]
    name = re.sub(r"[^\w.+-]+", "-", words[-1] if words else "study").strip("-.+")[:60]
    name = name if ALLOWED.fullmatch(name) else "study"
    path = out if out is not None else Path(f"{name}.yaml")
    if path.exists():
        raise StudyError("is there already", file=str(path), cure="remove it, or write another with --out")
    if not path.parent.is_dir():
        raise StudyError("there is no such folder", file=str(path.parent), cure="make it first")
    layout = find_layout(folder)
    seen = survey(folder, layout)
    if not seen.classes:
        raise StudyError(seen.problems[0].removeprefix("data.masks: "), file=str(folder))
    if ask is not None:
        seen = _named(seen, ask)
    place = os.path.relpath(folder.resolve(), path.resolve().parent)
    place = str(folder.resolve()) if place.startswith("../..") else Path(place).as_posix()
    text = study_text(name, place, seen, path.name)  # before the file is made: it may raise
    # Beside the study, where an editor finds it without network; one that is there may know plugins.
    texts = {path: text}
    if not os.path.lexists(schema := path.with_name(SCHEMA)):
        texts[schema] = json.dumps(json_schema(), indent=2) + "\n"
    for written, content in texts.items():
        with writing(written):
            publish_once(written, content.encode())
    return list(texts), notes(seen)


def _named(seen: Survey, ask: Ask) -> Survey:
    """Return the survey with the classes named as the user says, where no file named them."""
    import dataclasses

    if seen.labels.looks != "classes" or seen.names or seen.of_words:
        return seen
    classes: dict[str, Any] = {}
    for name, code in seen.classes.items():
        share = f"{100 * seen.share(code):.1f} % of the pixels"
        given = ask(f"Name of the class that masks store as {_code(seen, code)} ({share})", name).strip()
        classes[given if given and given not in classes else name] = code
    return dataclasses.replace(seen, classes=classes)


def notes(seen: Survey) -> list[str]:
    """Return what a user should know before the study is run, a line each."""
    found = [*seen.layout.unpaired, *seen.problems]
    if found:
        found.append(NOT_READY)
    if seen.labels.looks == "shades":
        areas = seen.labels.plain
        mixed = 100 * (1 - sum(map(seen.labels.share, areas)))
        found.append(
            f"the masks hold {len(seen.labels.pixels):,} values, which look interpolated or lossy: the {len(areas)} "
            f"that fill areas are the classes, and all others, {mixed:.2g} % of the pixels, are ignored; better store "
            "the masks again without smoothing or compressing them"
        )
    if seen.labels.looks == "objects":
        found.append("the masks seem to number objects one by one: all of them are one class")
    if len(seen.classes) == 1 and not seen.multilabel:
        found.append("the masks hold one value only, and a study tells at least two classes apart")
    if seen.layout.rivals:
        others = ", ".join((seen.layout.masks, *seen.layout.rivals))
        found.append(
            f"several files go with each image ({others}): if they are masks of classes that a pixel may bear at once, "
            "write one pattern with {class} where their names differ, and the words that stand there as classes"
        )
    if seen.of_words:
        found.append(
            f"{len(seen.of_words)} masks of 0 and another value go with each image: each is taken for that of a class; "
            "if only one is meant, write its name in masks, without {class}, and its values as classes"
        )
    elif seen.multilabel:
        values = sorted(set(seen.labels.pixels) - set(seen.ignore))
        plain = ", ".join(f"class_{value}: {value}" for value in values)
        found.append(
            "the values are sums of bits, each of which is taken for a class; if each value is a class of its own, "
            f"write classes: {{{plain}}}"
        )
    elif bits := sums_of(seen.labels, seen.names):
        named = ", ".join(f"class_{bit}: {{bit: {bit.bit_length() - 1}}}" for bit in bits)
        found.append(f"the values are sums of {bits}: if a pixel may bear several classes, write classes: {{{named}}}")
    if seen.copies:
        found.append(f"{count_of(seen.copies, 'image')} with the same bytes as another one: copies stay in one split")
    elif seen.layout.split is None and seen.group is None:
        found.append("no patient or sequence is seen in the names: set data.group if images belong together")
    elif seen.layout.split is None and seen.group is not None and "/" not in seen.group:
        found.append(
            "images whose names begin alike are taken for a group (a patient, a sequence), which stays in one split: "
            "remove data.group if they are none"
        )
    images = [image for image, _ in seen.layout.all_pairs()]
    if seen.layout.split is not None and seen.group is None and find_group([Path(image).name for image in images]):
        found.append(
            "images whose names begin alike are in several splits: what is scored may resemble what is learned"
        )
    return found


def study_text(name: str, root: str, seen: Survey, file: str) -> str:
    """Return the study file: what was seen stands in comments beside what follows from it."""
    layout, images = seen.layout, sum(seen.sizes.values())
    trained = len(layout.pairs["train"]) if layout.split else round(0.7 * images)
    batch = 8 if trained >= 48 else 4 if trained >= 12 else 2
    epochs = min(60, max(10, round(STEPS * batch / max(trained, 1))))
    size, why = _size(seen)
    rare = min((seen.share(code) for code in seen.classes.values() if not isinstance(code, list)), default=1.0)
    colour = " and ".join({1: "grey", 3: "colour"}.get(bands, f"{bands} bands") for bands in sorted(seen.bands))
    bits = " and ".join(BITS[depth] for depth in sorted(seen.depths))
    lines = [
        f"# yaml-language-server: $schema={SCHEMA}",
        f"# Written by `ablate init`, which looked at {images:,} images and their masks. Try it: "
        f"ablate check {shlex.quote(file)}",
        "# Everything that a study may say: `ablate schema`; what each line does: studies/folder-example.yaml.",
        "",
        f"study: {_text(name)}",
        "data:",
        "  name: folder",
        f"  root: {_text(root)}",
        f"  images: {_text(layout.images)}  # {images:,} images, {colour}, {bits}",
        f"  masks: {_text(layout.masks)}  # {_stored(seen)}",
        f"  classes:{_about_classes(seen)}",
        *(f"    {_text(key)}: {_entry(seen, code)}" for key, code in seen.classes.items()),
        *([f"  ignore: {_list(seen, seen.ignore)}  # not scored"] if seen.ignore else []),
        f"  size: [{size[0]}, {size[1]}]  # height, width; {why}",
        f"  split: {_split(layout.split)}",
        f"  group: {json.dumps(seen.group)}  # images of one patient or sequence stay in one split"
        if seen.group
        else '  # group: "^([^_]+)_"  # the patient or sequence in a file\'s name: never in two splits',
        "",
        "model: {name: unet, width: 16}",
        "variants:  # each one says only what it changes",
        "  unet: {}",
        "  noskip: {skip: none}",
        "  residual: {block: residual}",
        "  attention: {skip: attention}",
        "baseline: unet",
        "",
        "grid: {lr: [1e-3, 3e-4, 1e-4]}",
        "screen: {seeds: 1, again: 2}  # one seed at every rate, one more at each variant's two best by validation",
        "confirm: {seeds: 6}  # fresh seeds at the rate that won: these decide",
        "train:",
        f"  epochs: {epochs}  # about {epochs * max(1, trained // batch):,} steps; the report says if that was too few",
        f"  batch_size: {batch}",
        "  augment: {flip: true}",
    ]
    if rare < 0.05:
        lines.append(f"  class_weights: balanced  # the rarest class has {100 * rare:.2g} % of the pixels")
    return "\n".join(lines) + "\n"


def _size(seen: Survey) -> tuple[tuple[int, int], str]:
    """Return the size to train at, and what the images have."""
    sizes = sorted(seen.sizes)
    if not sizes:
        raise StudyError(seen.problems[0])
    height, width = max(sizes, key=lambda size: (seen.sizes[size], size))
    has = f"all images have {height} × {width}" if len(sizes) == 1 else f"images have {len(sizes)} sizes"
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    if scale == 1.0:
        return (height, width), has
    small = max(16, 16 * round(height * scale / 16)), max(16, 16 * round(width * scale / 16))
    return small, f"{has}; larger shows finer things and takes longer"


def _stored(seen: Survey) -> str:
    labels = seen.labels
    shown = sorted(labels.pixels)[:VALUES_SHOWN]
    more = f" and {len(labels.pixels) - len(shown):,} more" if len(labels.pixels) > len(shown) else ""
    return f"they store {'colours' if labels.coloured else ', '.join(map(str, shown)) + more}"


def _about_classes(seen: Survey) -> str:
    several = ["a pixel may bear several, or none"] if seen.multilabel else []
    yours = [] if seen.names else ["the names are yours to change: they stand in every table"]
    return f"  # {'; '.join(several + yours)}" if several + yours else ""


def _entry(seen: Survey, code: Any) -> str:
    if isinstance(code, list):
        return _list(seen, code)
    share = 100 * seen.share(code)
    return f"{_code(seen, code)}  # {share:.{2 if share < 99.5 else 3}g} % of the pixels"


def _code(seen: Survey, code: Any) -> str:
    """Return what stands for a class in the study file: a value, a bit, or a word in the names of files."""
    if isinstance(code, int):
        return seen.labels.shown(code)
    return _text(code) if isinstance(code, str) else f"{{bit: {code['bit']}}}"


def _list(seen: Survey, codes: Any) -> str:
    return f"[{', '.join(seen.labels.shown(code) for code in codes)}]"


def _split(split: Mapping[str, str] | None) -> str:
    if split is None:
        return "{train: 0.7, val: 0.15, test: 0.15, seed: 0}"
    return f"{{{', '.join(f'{role}: {_text(word)}' for role, word in split.items())}}}"


def _text(text: str) -> str:
    """Return a text as YAML: plain where nothing in it has a meaning there."""
    plain = re.fullmatch(r"[A-Za-z_][\w./+-]*", text) and text.lower() not in ("true", "false", "null")
    return text if plain else json.dumps(text, ensure_ascii=False)
