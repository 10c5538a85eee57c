"""Names to factories: the one place where the words of a study file meet the code they stand for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from ablate.errors import PluginError, Problem, StudyError, nearest

Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """A registered name: where it comes from, and the factory or the "module:attribute" to import."""

    source: str
    target: Callable[..., Any] | str


class Registry:
    """One kind of component ("model", "data set", ...) by name.

    Built-in components are named by a string and imported when first used, so that a process that only
    reads results never imports torch.
    """

    def __init__(self, kind: str, built_in: dict[str, str]) -> None:
        self.kind = kind
        self._entries = {name: Entry("ablate", target) for name, target in built_in.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def register(self, name: str) -> Callable[[Factory], Factory]:
        """Make a decorator that makes a factory known as `name`.

        Raises `PluginError` where the name is taken by another factory; both places are named.
        """

        def add(factory: Factory) -> Factory:
            source = _source_of(factory)
            taken = self._entries.get(name)
            if taken is not None and taken.source != source:
                raise PluginError(
                    f"the {self.kind} '{name}' is registered twice: in {taken.source} and in {source}",
                    cure="give one of them another name",
                )
            self._entries[name] = Entry(source, factory)
            return factory

        return add

    def get(self, name: str) -> Callable[..., Any]:
        """Return the factory registered as `name`; raises `StudyError` with the nearest choice where there is none."""
        entry = self._entries.get(name)
        if entry is None:
            raise StudyError(Problem(f"unknown {self.kind} '{name}'", cure=nearest(name, self._entries)))
        if isinstance(entry.target, str):
            module, attribute = entry.target.split(":")
            factory: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
            self._entries[name] = Entry(entry.source, factory)
            return factory
        return entry.target

    def source(self, name: str) -> str:
        """Return the place where `name` was registered: "ablate" or "file:line"."""
        return self._entries[name].source


def _source_of(factory: Callable[..., Any]) -> str:
    try:
        return f"{inspect.getsourcefile(factory)}:{inspect.getsourcelines(factory)[1]}"
    except (OSError, TypeError):
        return getattr(factory, "__module__", "unknown")


MODELS = Registry("model", {"unet": "ablate.models.unet:unet"})
DATASETS = Registry(
    "data set",
    {
        "street": "ablate.data.street.generate:street",
        "camvid": "ablate.data.files.folder:camvid",
        "folder": "ablate.data.files.folder:folder",
    },
)
LOSSES = Registry(
    "loss",
    {
        "cross_entropy": "ablate.train.losses:cross_entropy",
        "dice": "ablate.train.losses:dice",
        "cross_entropy_dice": "ablate.train.losses:cross_entropy_dice",
    },
)
OPTIMIZERS = Registry(
    "optimizer",
    {
        "adam": "ablate.train.optim:adam",
        "adamw": "ablate.train.optim:adamw",
        "sgd": "ablate.train.optim:sgd",
    },
)
FIGURES = Registry("figure", {})

register_model = MODELS.register
register_dataset = DATASETS.register
register_loss = LOSSES.register
register_optimizer = OPTIMIZERS.register
register_figure = FIGURES.register
