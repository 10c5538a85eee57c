"""`ablate`: ablation studies of segmentation models that can be trusted."""

from __future__ import annotations

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
    from ablate.analysis.frames import load_results

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "load_results",
    "register_augment",
    "register_dataset",
    "register_figure",
    "register_loss",
    "register_measure",
    "register_model",
    "register_optimizer",
    "register_table",
]


def __getattr__(name: str) -> Any:
    # pandas takes most of a second to import: only who asks for frames pays for it.
    if name == "load_results":
        from ablate.analysis.frames import load_results

        return load_results
    raise AttributeError(f"module 'ablate' has no attribute '{name}'")
