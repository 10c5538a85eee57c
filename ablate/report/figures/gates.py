"""Attention gates over the test images, one row a gate."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report.figures.common import NotDrawn, layer_depth, order, setting_label
from ablate.report.figures.panels import RUN_SHOWN, TILE, gallery, shown_trials, tile_sheet
from ablate.report.gates import overlay, read_maps
from ablate.report.panels import fixed_images, reduce
from ablate.report.style import short_names, shorten


@register_figure("gates")
def gates(analysis: Analysis) -> Figure:
    """What each attention gate lets through on the fixed test images."""
    pictures = gallery(analysis)
    found = {}
    for variant, trial in shown_trials(analysis).items():
        maps = read_maps(pictures.results.trial(trial).path / "gates.npz")
        if maps:
            found[variant] = maps
    if not found:
        raise NotDrawn("no shown trial has stored maps of attention gates")
    chosen = fixed_images(pictures.count)
    images = [reduce(pictures.image(one.index), TILE // 2, labels=False) for one in chosen]
    colours = (255 * matplotlib.colormaps["cividis"](np.arange(256))[:, :3]).astype(np.uint8)
    rows, names, short = [images], ["image"], short_names(list(found), 12)
    for variant in order(analysis):
        for gate, attention in sorted(found.get(variant, {}).items(), key=lambda item: layer_depth(item[0])):
            if len(attention) == len(images):
                low, high = (float(end) for end in np.percentile(attention, (2, 98)))
                stretched = (attention - low) / max(high - low, 1e-6)
                rows.append([overlay(image, alpha, colours) for image, alpha in zip(images, stretched, strict=True)])
                name = shorten(gate.removesuffix(".gate"), 12)
                names.append(f"{name if len(found) == 1 else short[variant]}\n{low:.2f} to {high:.2f}")
    if len(rows) == 1:
        raise NotDrawn("the stored maps are not of the test images that are shown")
    settings = ", ".join(f"{variant} at {setting_label(analysis, analysis.own_best[variant])}" for variant in found)
    rule = (
        f"Attention α of every gate ({settings}) over the image in grey, from dark blue (low) to yellow (high); α "
        "lets the skip through, 0 = shut, 1 = open. Every gate is shown over its own range, from its 2nd to its 98th "
        f"percentile on these images, written beside it. {RUN_SHOWN}"
    )
    return tile_sheet(analysis, pictures, rows, names, [str(one.index) for one in chosen], rule, classes=False)
