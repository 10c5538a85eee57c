"""`ablate`: ablation studies of segmentation models that can be trusted."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ablate.registry import (
    register_augment,
    register_dataset,
    register_figure,
    register_loss,
    register_measure,
    register_model,
    register_optimizer,
    register_table,
)

if TYPE_CHECKING:
    from ablate.analysis.analyse import analyse
    from ablate.analysis.frames import load_results
    from ablate.api import build_report, read_study, run_study
    from ablate.data.dataset import Dataset, Split

__version__ = "0.1.0"
__all__ = [
    "Dataset",
    "Split",
    "__version__",
    "analyse",
    "build_report",
    "load_results",
    "read_study",
    "register_augment",
    "register_dataset",
    "register_figure",
    "register_loss",
    "register_measure",
    "register_model",
    "register_optimizer",
    "register_table",
    "run_study",
]
# pandas and torch take seconds to import: only who asks for what needs them pays for it.
_LATER = {
    "Dataset": "ablate.data.dataset",
    "Split": "ablate.data.dataset",
    "analyse": "ablate.analysis.analyse",
    "build_report": "ablate.api",
    "load_results": "ablate.analysis.frames",
    "read_study": "ablate.api",
    "run_study": "ablate.api",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'ablate' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
