"""`ablate data`: look at a study's data set: a contact sheet with masks laid over, class frequencies, sizes, leaks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablate.data.dataset import SPLITS, Dataset, Split, as_bytes
from ablate.errors import StudyError
from ablate.records import paint
from ablate.records.files import refuse_link, writing
from ablate.records.images import panel_indices
from ablate.wording import count_of, listed

SHOWN = 6  # images of each split
LARGEST = 320  # pixels of a tile's longest side
GAP = 6
TEXT = 18  # pixels of a letter's height
# Below this share of the training pixels a class is called rare.
RARE = 0.01


def write_sheet(data: Dataset, path: Path) -> None:
    """Write a PNG: of each split a row of images over a row of the same with their masks laid over, and a legend."""
    rows = []
    for name in SPLITS:
        split = data.splits[name]
        chosen = panel_indices(len(split), SHOWN)
        images = [_tile(_shown(split, place)) for place in chosen]
        laid = [_laid_over(data, split, place, enlarge=True) for place in chosen]
        blank = [np.full_like(images[0], 255)] * (SHOWN - len(chosen))
        rows += [[*images, *blank], [*laid, *blank]]
    sheet = _with_legend(Image.fromarray(paint.mosaic(rows, GAP)), data)
    try:
        with writing(path):
            refuse_link(path)
            sheet.save(path)
    except (KeyError, ValueError):
        raise StudyError("no picture has such an ending", file=str(path), cure="write one in .png") from None


def _with_legend(tiles: Image.Image, data: Dataset) -> Image.Image:
    """Return the tiles with the names of the splits on their left and the colours of the classes below."""
    font = ImageFont.load_default(size=TEXT)
    left = 2 * GAP + round(max(font.getlength(name) for name in SPLITS))
    entries, x, y = [], left, tiles.height + 2 * GAP
    for label, colour in zip(data.classes, data.palette, strict=True):
        width = TEXT + GAP + round(font.getlength(label))
        if x > left and x + width > left + tiles.width:
            x, y = left, y + TEXT + 2 * GAP
        entries.append((x, y, label, colour))
        x += width + 4 * GAP
    sheet = Image.new("RGB", (left + tiles.width + GAP, y + TEXT + 2 * GAP), "white")
    sheet.paste(tiles, (left, 0))
    draw = ImageDraw.Draw(sheet)
    for number, name in enumerate(SPLITS):
        draw.text((GAP, GAP + number * tiles.height // len(SPLITS)), name, fill="black", font=font)
    for x, y, label, colour in entries:
        draw.rectangle((x, y, x + TEXT, y + TEXT), fill=tuple(colour), outline="black")
        draw.text((x + TEXT + GAP, y + TEXT // 2), label, fill="black", font=font, anchor="lm")
    return sheet


def _tile(image: np.ndarray) -> np.ndarray:
    """Return an image as large as a tile: small ones enlarged by a whole number, so that their pixels stay sharp."""
    return paint.reduce(paint.enlarge(image, max(1, LARGEST // max(image.shape[:2]))), LARGEST, labels=False)


def _shown(split: Split, place: int) -> np.ndarray:
    image = as_bytes(np.asarray(split.images[place]))
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _laid_over(data: Dataset, split: Split, place: int, *, enlarge: bool = False) -> np.ndarray:
    image, mask = _shown(split, place), np.asarray(split.masks[place])
    if enlarge:  # before the outlines are drawn, which then are thin
        factor = max(1, LARGEST // max(mask.shape))
        image, mask = paint.enlarge(image, factor), paint.enlarge(mask, factor)
    laid = paint.labelled(image, mask, data.palette, multilabel=data.multilabel)
    return paint.reduce(laid, LARGEST, labels=False) if enlarge else laid


def leaks(data: Dataset) -> list[str]:
    """Return what is in two splits: images of the same pixels, and groups, a line each."""
    homes: dict[str, dict[str, str]] = {}
    for name in SPLITS:
        split = data.splits[name]
        for label, image in zip(split.names, split.images, strict=True):
            digest = hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
            homes.setdefault(digest, {}).setdefault(name, label)
    twice = [found for found in homes.values() if len(found) > 1]
    lines = []
    if twice:
        first = listed(f"{label} ({split})" for split, label in twice[0].items())
        lines.append(f"{count_of(len(twice), 'image')} in more than one split, such as {first}")
    groups = [set(data.splits[name].groups or ()) for name in SPLITS]
    shared = sorted((groups[0] & groups[1]) | (groups[0] & groups[2]) | (groups[1] & groups[2]))
    if shared:
        lines.append(f"{count_of(len(shared), 'group')} in more than one split: {', '.join(shared[:3])}")
    return lines


def print_data(data: Dataset, console: Console | None = None) -> None:
    """Print sizes, class frequencies by split and leaks; in a terminal of colours also some images with their masks."""
    console = console or Console()
    height, width = data.size
    counts = " / ".join(str(len(data.splits[name])) for name in SPLITS)
    bits = 8 * data.splits["train"].images.itemsize
    console.print(
        Text(
            f"{data.name}: {counts} images (train / val / test) at {height} × {width}, "
            f"{count_of(data.in_channels, 'channel')} of {bits} bits"
        ),
        soft_wrap=True,
    )
    groups = data.splits["train"].groups
    if groups:
        numbers = " / ".join(str(len(set(data.splits[name].groups or ()))) for name in SPLITS)
        console.print(Text(f"groups: {numbers}"))
    found = {name: data.pixels_of_classes(name) for name in SPLITS}
    # Of all pixels: where one may bear several classes, the classes' shares are no parts of a whole.
    pixels = {name: data.splits[name].masks.size for name in SPLITS}
    console.print("pixels of each class, %; a pixel may bear several" if data.multilabel else "pixels of each class, %")
    table = Table()
    table.add_column("class", overflow="fold")
    for name in SPLITS:
        table.add_column(name, justify="right")
    for place, label in enumerate([*data.classes, "(ignored)"]):
        shares = [100 * found[name][place] / pixels[name] for name in SPLITS]
        if place == data.num_classes and not any(shares):
            continue
        note, colour = "", "default"
        if place < data.num_classes:
            said = [name for name, share in zip(SPLITS, shares, strict=True) if not share]
            note = f" (none in {listed(said)})" if said else " (rare)" if shares[0] < 100 * RARE else ""
            colour = "rgb({},{},{})".format(*data.palette[place])
        table.add_row(Text.assemble(("██ ", colour), label, note), *(f"{share:.2f}" for share in shares))
    console.print(table)
    for line in leaks(data) or ["no image and no group is in two splits"]:
        console.print(Text(line), soft_wrap=True)
    if console.color_system == "truecolor":
        split = data.splits["train"]
        for place in panel_indices(len(split), 2):
            both = np.concatenate([_shown(split, place), _laid_over(data, split, place)], axis=1)
            console.print(half_blocks(both, console.width))


def half_blocks(image: np.ndarray, columns: int) -> Text:
    """Return an image (H, W, 3) as text in two colours a sign, at most so many columns wide."""
    small = paint.reduce(image, min(columns, 100), labels=False)
    small = small[: len(small) // 2 * 2]
    text = Text(no_wrap=True)
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        for top, bottom in zip(upper, lower, strict=True):
            text.append("▀", style="rgb({},{},{}) on rgb({},{},{})".format(*top, *bottom))
        text.append("\n")
    return text
