"""Every figure of the report: functions from an `Analysis` to a matplotlib `Figure`, registered by name."""

from __future__ import annotations

from ablate.report.figures import (  # noqa: F401 – importing them registers them
    bars,
    budget,
    consolidated,
    contrasts,
    cost,
    curves,
    gates,
    layers,
    maps,
    panels,
    rates,
    streams,
)

# In the order of the page; what else is registered (by a plugin) follows.
ORDER = (
    "consolidated",
    "contrasts",
    "curves",
    "curves_by_rate",
    "test",
    "maps",
    "rates",
    "classes",
    "detail",
    "cost",
    "streams",
    "gradients",
    "gate_scores",
    "budget",
    "panels",
    "telling",
    "crops",
    "gates",
)
# Those made of test images: the page shows them with the predictions.
OF_IMAGES = frozenset({"panels", "telling", "crops", "gates"})
TITLES = {
    "consolidated": "Consolidated results",
    "contrasts": "Differences to the baseline three ways",
    "curves": "Curves at the chosen rates",
    "curves_by_rate": "Curves rate by rate",
    "test": "Test loss and test mIoU",
    "maps": "Maps over variant and rate",
    "rates": "mIoU against the learning rate",
    "classes": "Differences per class",
    "detail": "Fine detail",
    "cost": "mIoU against cost",
    "streams": "Stability of the training loss",
    "gradients": "Gradient flow by layer",
    "gate_scores": "What attention gates tell apart",
    "budget": "Tuning budget",
    "panels": "All variants on the same test images",
    "telling": "Best, median, worst and most disagreed upon",
    "crops": "Crops around thin structures",
    "gates": "Attention gates over the image",
}
