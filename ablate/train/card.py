"""All that a trained network needs besides its weights to judge an image: kept as `best.json` beside `best.pt`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ablate.data.dataset import Dataset
from ablate.study.trial import Trial

Colour = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]


class ModelCard(BaseModel):
    """A network's settings, classes and normalisation.

    An image enters as (value / `white` - `mean`) / `std` by channel, resized to `size` (height, width); where `window`
    is given, stored values were mapped from it to 0..`white` before. Logits are those of a softmax over the classes;
    of each class's own sigmoid where the network is `multilabel`.
    """

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    schema_version: int = 1
    key: str
    variant: str
    model: dict[str, Any]
    in_channels: Annotated[int, Field(ge=1, le=4096)]
    classes: Annotated[list[str], Field(min_length=2, max_length=255)]
    palette: list[Colour]
    mean: list[float]
    std: list[float]
    white: int
    window: tuple[float, float] | None = None
    size: tuple[Annotated[int, Field(ge=1, le=16_384)], Annotated[int, Field(ge=1, le=16_384)]]
    multilabel: bool = False

    @classmethod
    def of(cls, trial: Trial, dataset: Dataset) -> ModelCard:
        """Return the card of a trial's network, trained on `dataset`."""
        return cls(
            key=trial.key,
            variant=trial.variant,
            model=trial.model,
            in_channels=dataset.in_channels,
            classes=list(dataset.classes),
            palette=[list(colour) for colour in dataset.palette],
            mean=list(dataset.mean),
            std=list(dataset.std),
            white=dataset.white,
            window=dataset.window,
            size=dataset.size,
            multilabel=dataset.multilabel,
        )

    def document(self) -> dict[str, Any]:
        """Return the card as JSON values; `multilabel` stands there only where it is true."""
        return self.model_dump(mode="json", exclude=None if self.multilabel else {"multilabel"})
