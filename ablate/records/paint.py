"""Arrays to painted tiles, and tiles to files: the one place that decides how truth, prediction and error look.

Images are uint8 (H, W, 3), label maps uint8 (H, W).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from ablate.measure.segmentation import bit_planes, resize_labels
from ablate.records.images import panel_indices, unpack_image, unpack_maps
from ablate.records.store import Results, read_json

IGNORED = (235, 237, 240)  # palest grey: not scored
WRONG = (179, 38, 30)
NO_CLASS = (24, 24, 24)


def grey(image: np.ndarray) -> np.ndarray:
    """Return the lightness of an image, float32 (H, W) in 0 … 255 (ITU-R BT.601)."""
    return image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def palette_of(index: Mapping[str, Any]) -> np.ndarray:
    """Return the colour of every label of a results folder, by its `test/index.json`: uint8 (256, 3).

    Classes without a colour are greys, ignored pixels palest grey. A pixel of several classes has the mean of their
    colours, one of none is nearly black.
    """
    table = np.zeros((256, 3), np.uint8)
    given = [colour for colour in index.get("palette") or [] if len(colour) == 3]
    for label in range(len(index.get("classes", []))):
        level = 40 + (label * 67) % 180
        table[label] = given[label] if label < len(given) else (level, level, level)
    if index.get("multilabel"):
        table = blended(table[: len(index["classes"])])
    table[int(index.get("ignore_index", 255))] = IGNORED
    return table


def blended(palette: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
    """Return the colour uint8 (256, 3) of every sum of 2^class: the mean of its classes' colours (classes, 3)."""
    planes = bit_planes(len(palette))
    mixed = planes @ np.asarray(palette, float) / np.maximum(planes.sum(1, keepdims=True), 1)
    return np.where(planes.any(1, keepdims=True), mixed.round(), NO_CLASS).astype(np.uint8)


def error_tile(image: np.ndarray, target: np.ndarray, prediction: np.ndarray, ignore_index: int) -> np.ndarray:
    """Return the image faded to pale grey, wrong pixels red, ignored ones blank."""
    faded = (185 + grey(image) * 0.25).astype(np.uint8)
    tile = np.repeat(faded[..., None], 3, axis=2)
    tile[wrong_pixels(target, prediction, ignore_index)] = WRONG
    tile[target == ignore_index] = IGNORED
    return tile


def wrong_pixels(target: np.ndarray, prediction: np.ndarray, ignore_index: int) -> np.ndarray:
    """Return where the prediction is wrong and scored: bool (H, W)."""
    return (prediction != target) & (target != ignore_index)


def overlay(image: np.ndarray, attention: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Return the image in grey under its attention in colour.

    `attention` is (h, w) in [0, 1], enlarged to the image by bilinear interpolation; `colours` are uint8 (256, 3).
    """
    height, width = image.shape[:2]
    level = (255 * np.clip(np.nan_to_num(attention), 0, 1)).astype(np.uint8)
    index = np.asarray(Image.fromarray(level).resize((width, height), Image.Resampling.BILINEAR))
    share = 0.55
    mixed = (1 - share) * grey(image)[..., None] + share * colours[index].astype(np.float32)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def labelled(
    image: np.ndarray, labels: np.ndarray, palette: Sequence[Sequence[int]], *, multilabel: bool = False
) -> np.ndarray:
    """Return an image (H, W, 1 or 3) under its labels (H, W) in their colours, their borders drawn full; ignored bare.

    Labels without a colour in `palette` are ignored ones; `multilabel` ones are sums of 2^class, those of none bare.
    """
    colours = np.zeros((256, 3), np.float32)
    colours[: len(palette)] = palette
    known = (labels < len(palette))[..., None]
    if multilabel:
        colours = blended(palette).astype(np.float32)
        known = (bit_planes(len(palette)).sum(1) > 0)[labels][..., None]
    image = np.broadcast_to(image, (*labels.shape, 3)).astype(np.float32)
    border = np.zeros(labels.shape, bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    share = np.where(border, 0.9, 0.4)[..., None] * known
    return np.clip((1 - share) * image + share * colours[labels], 0, 255).astype(np.uint8)


def with_outline(image: np.ndarray, top: float, left: float, height: float, width: float) -> np.ndarray:
    """Return a copy of an image with a window outlined in red on white."""
    outlined = Image.fromarray(image)
    line = max(1, round(image.shape[1] / 160))
    box = (round(left), round(top), round(left + width) - 1, round(top + height) - 1)
    ImageDraw.Draw(outlined).rectangle(box, outline=(255, 255, 255), width=2 * line)
    ImageDraw.Draw(outlined).rectangle(box, outline=WRONG, width=line)
    return np.asarray(outlined)


def mosaic(rows: Sequence[Sequence[np.ndarray]], gap: int) -> np.ndarray:
    """Return tiles of one size (H, W, 3), row by row, with `gap` white pixels between them."""
    padded = [[np.pad(tile, ((0, gap), (0, gap), (0, 0)), constant_values=255) for tile in row] for row in rows]
    return np.concatenate([np.concatenate(row, axis=1) for row in padded])[:-gap, :-gap]


def reduce(tile: np.ndarray, most: int, *, labels: bool) -> np.ndarray:
    """Return the tile no wider or higher than `most` pixels: labels by their nearest pixel, images by averaging."""
    height, width = tile.shape[:2]
    scale = most / max(height, width)
    if scale >= 1:
        return tile
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = Image.Resampling.NEAREST if labels else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(tile).resize(size, how))


def enlarge(tile: np.ndarray, times: int) -> np.ndarray:
    """Return the tile with every pixel repeated so many times in both directions."""
    return tile.repeat(times, axis=0).repeat(times, axis=1)


def fitted(tile: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the tile as large as fits into `size` (height, width) with its own proportions."""
    return np.asarray(ImageOps.contain(Image.fromarray(tile), size[::-1], Image.Resampling.LANCZOS))


def centred(tile: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the tile, which fits, in the middle of a white one of `size` (height, width)."""
    return np.asarray(ImageOps.pad(Image.fromarray(tile), size[::-1], color="white"))


def write_panel(results: Results, name: str, path: Path) -> Path | None:
    """Write the panel of the trial `name` to `path`, at the size trained at; None where it has no predictions."""
    index = read_json(results.test / "index.json")
    predictions = results.trial(name).predictions
    if index is None or not predictions.exists():
        return None
    chosen = panel_indices(len(index["names"]))
    targets, preds = unpack_maps(results.test / "targets.zip", chosen), unpack_maps(predictions, chosen)
    palette = palette_of(index)
    rows = []
    for number, target, pred in zip(chosen, targets, preds, strict=True):
        image = unpack_image(results.test / "images.zip", number)
        # Scored at the masks' own size, the maps are as large as those.
        target, pred = (resize_labels(labels, image.shape[:2]) for labels in (target, pred))
        error = error_tile(image, target, pred, index["ignore_index"])
        rows.append(np.concatenate([image, palette[target], palette[pred], error], axis=1))
    Image.fromarray(np.concatenate(rows)).save(path)
    return path


# --- small files ----------------------------------------------------------------------------------------------------


def data_uri(data: bytes, kind: str) -> str:
    """Return bytes as a data URI of a media type such as image/svg+xml."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def photo_uri(image: np.ndarray) -> str:
    """Return a photograph as a data URI: a WebP with loss, of half the bytes of a JPEG that looks alike."""
    return _webp_uri(Image.fromarray(image), quality=80)


def labels_uri(labels: np.ndarray, palette: np.ndarray) -> str:
    """Return labels in the colours of the palette (256, 3) as a data URI, exact to the pixel."""
    return _webp_uri(Image.fromarray(palette[labels]), lossless=True, quality=100)


def mask_uri(mask: np.ndarray) -> str:
    """Return a mask of 0 and 1 as a data URI: red where it is 1, else transparent."""
    colours = np.array([(0, 0, 0, 0), (*WRONG, 255)], np.uint8)
    return _webp_uri(Image.fromarray(colours[mask]), lossless=True, quality=100)


def _webp_uri(image: Image.Image, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **options)
    return data_uri(buffer.getvalue(), "image/webp")
