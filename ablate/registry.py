"""Names to factories: the one place where the words of a study file meet the code they stand for."""

from __future__ import annotations

import importlib
import inspect
import math
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ablate.errors import PluginError, StudyError, nearest

Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """A registered name: where it comes from, and the factory or the "module:attribute" to import."""

    source: str
    target: Callable[..., Any] | str


class Registry:
    """One kind of component ("model", "data set", ...) by name.

    Built-in components are named by a string and imported when first used, so that a process that only
    reads results never imports torch. The components of a family, such as "transformers/segformer", are those that the
    function it is named by gives, which is called for the first name that begins so.
    """

    def __init__(self, kind: str, built_in: dict[str, str], families: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._families = dict(families or {})
        self._entries = {name: Entry("ablate", target) for name, target in built_in.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        family = str(name).partition("/")[0]
        if family in self._families and name not in self._entries:
            made = _target(self._families[family])()
            self._entries |= {f"{family}/{own}": Entry("ablate", factory) for own, factory in made.items()}
        return name in self._entries

    def register(self, name: str) -> Callable[[Factory], Factory]:
        """Make a decorator that makes a factory known as `name`.

        Raises `PluginError` where the name is taken by another factory; both places are named.
        """

        def add(factory: Factory) -> Factory:
            self._entries[name] = Entry(_own_source(self.kind, name, factory, self._entries.get(name)), factory)
            return factory

        return add

    def cure_for(self, name: str) -> str:
        """Return what to write in the place of `name`, which is not registered."""
        cure = nearest(name, self._entries)
        if cure.startswith("did you mean"):
            return cure
        return "; ".join(filter(None, [cure, "one of your own is loaded by --plugin FILE.py"]))

    def get(self, name: str) -> Callable[..., Any]:
        """Return the factory registered as `name`; raises `StudyError` with the nearest choice where there is none."""
        if name not in self:
            raise StudyError(f"unknown {self.kind} '{name}'", cure=self.cure_for(name))
        entry = self._entries[name]
        if isinstance(entry.target, str):
            factory = _target(entry.target)
            self._entries[name] = Entry(entry.source, factory)
            return factory
        return entry.target

    def source(self, name: str) -> str:
        """Return the place where `name` was registered: "ablate" or "file:line"."""
        return self._entries[name].source

    def broken(self, name: str, reason: str | Exception, cure: str = "") -> PluginError:
        """Return the error that says in one line what is wrong with the component `name`.

        An exception is said with the deepest line that it passed of the plugin's file, or of a module beside or below
        it; else the place is that of the registration.
        """
        return broken(f"the {self.kind} '{name}'", self.source(name), reason, cure)


def _target(place: str) -> Callable[..., Any]:
    """Import what "module:attribute" names."""
    module, attribute = place.split(":")
    target: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return target


def broken(what: str, source: str, reason: str | Exception, cure: str = "") -> PluginError:
    """Return the error about `what`, such as "the model 'mine'", of the place `source`: see `Registry.broken`."""
    file, _, line = source.rpartition(":")
    if isinstance(reason, Exception):
        frames = traceback.extract_tb(reason.__traceback__)
        folder = Path(file).parent
        own = [one for one in frames if file and (one.filename == file or is_below(Path(one.filename), folder))]
        if own:
            file, line = own[-1].filename, str(own[-1].lineno)
        elsewhere = "" if own or not frames else f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})"
        text = " ".join(str(reason).split())
        reason = f"{type(reason).__name__}{': ' if text else ''}{text}{elsewhere}"
    place = {"file": file, "line": int(line)} if line.isdecimal() else {"file": source}
    return PluginError(f"{what}: {reason}", cure=cure, **place)


def is_below(file: Path, folder: Path) -> bool:
    """Return whether a module lies in the folder of a plugin, or below it, and is of no library nor of `ablate`."""
    libraries = sysconfig.get_path("stdlib"), Path(__file__).parent
    installed = "site-packages" in file.parts or any(file.is_relative_to(library) for library in libraries)
    return file.is_relative_to(folder) and not installed


@dataclass(frozen=True)
class Place:
    """The place of a figure or table in a report: its title, its section, and its rank within the section."""

    title: str
    section: str
    order: int


class Displays(Registry):
    """The figures or the tables of a report by name, each with its `Place`; the first of `sections` is the default."""

    def __init__(self, kind: str, sections: tuple[str, ...]) -> None:
        super().__init__(kind, {})
        self.sections = sections
        self._places: dict[str, Place] = {}

    def __iter__(self) -> Iterator[str]:
        rank = {section: rank for rank, section in enumerate(self.sections)}
        places = self._places.items()
        return iter([name for name, place in sorted(places, key=lambda item: (rank[item[1].section], item[1].order))])

    def register(
        self, name: str, *, title: str = "", section: str = "", order: int = 1000
    ) -> Callable[[Factory], Factory]:
        """Return a decorator that makes a function known as `name`, with its place in the report.

        The function takes the `Analysis`. `title` is by default the name in words, `section` the first one. Raises
        `PluginError` for an unknown section, a name that is no file's, or one that is taken.
        """
        section = section or self.sections[0]
        if section not in self.sections:
            raise PluginError(
                f"the {self.kind} '{name}': unknown section '{section}'", cure=nearest(section, self.sections)
            )
        if not name.replace("_", "").isalnum() or not name.isascii():
            raise PluginError(f"the {self.kind} '{name}' names its files", cure="take letters, digits and _ only")
        known = super().register(name)

        def add(factory: Factory) -> Factory:
            known(factory)
            self._places[name] = Place(title or name.replace("_", " ").capitalize(), section, order)
            return factory

        return add

    def place(self, name: str) -> Place:
        """Return where the figure or table `name` stands."""
        return self._places[name]


def _own_source(kind: str, name: str, factory: Callable[..., Any], taken: Entry | Measure | None) -> str:
    """Return the place of a factory; raises `PluginError` where its name was `taken` at another place."""
    try:
        source = f"{inspect.getsourcefile(factory)}:{inspect.getsourcelines(factory)[1]}"
    except (OSError, TypeError):
        source = getattr(factory, "__module__", "unknown")
    if taken is not None and taken.source != source:
        message = f"the {kind} '{name}' is registered twice: in {taken.source} and in {source}"
        raise PluginError(message, cure="give one of them another name")
    return source


@dataclass(frozen=True)
class Measure:
    """A measure of one trial: a function of its arrays (`ablate.measure.TrialArrays`), and how it is shown.

    `function` returns a number or a `Measured`; a ValueError it raises is the reason why the measure is missing.
    `if_diverged` is what a diverged trial counts in a mean over seeds where the function gives it no number; NaN
    leaves it out. `unit` is "" for a fraction or a plain number.
    """

    name: str
    title: str
    unit: str
    section: str
    order: int
    function: Callable[..., Any]
    source: str
    if_diverged: float = math.nan


class Measures(Mapping[str, Measure]):
    """The measures of a trial by name, those of lower order first: `MEASURES["rise"].title`.

    Modules that register built-in measures are imported at the first look.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = list(modules)
        self._entries: dict[str, Measure] = {}

    def __getitem__(self, name: str) -> Measure:
        return self._known()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._known(), key=lambda name: self._entries[name].order))

    def __len__(self) -> int:
        return len(self._known())

    def _known(self) -> dict[str, Measure]:
        while self._modules:
            importlib.import_module(self._modules.pop())
        return self._entries

    def register(
        self,
        name: str,
        *,
        title: str = "",
        unit: str = "",
        section: str = "other",
        order: int = 1000,
        if_diverged: float = math.nan,
    ) -> Callable[[Factory], Factory]:
        """Return a decorator that makes a function a measure of every trial, known as `name`.

        It becomes a column of the frames of trials and of cells, and what claims may be about. `title` is by default
        the name in words; see `Measure` for the rest. Raises `PluginError` where the name is taken by another function.
        """

        def add(function: Factory) -> Factory:
            source = _own_source("measure", name, function, self._entries.get(name))
            words = title or name.replace("_", " ")
            self._entries[name] = Measure(name, words, unit, section, order, function, source, if_diverged)
            return function

        return add


MEASURES = Measures(["ablate.measure.segmentation", "ablate.measure.stability"])
register_measure = MEASURES.register

MODELS = Registry(
    "model",
    {
        "unet": "ablate.models.unet:unet",
        **{f"monai/{name}": f"ablate.models.foreign:{name}" for name in ("attention_unet", "basic_unet", "segresnet")},
        "monai/unet": "ablate.models.foreign:unet",
    },
    families={"transformers": "ablate.models.foreign:transformers"},
)
DATASETS = Registry(
    "data set",
    {
        "street": "ablate.data.street:street",
        "camvid": "ablate.data.files:camvid",
        "folder": "ablate.data.files:folder",
    },
)
_LOSSES = (
    "cross_entropy",
    "dice",
    "cross_entropy_dice",
    "focal",
    "tversky",
    "generalized_dice",
    "cross_entropy_boundary",
)
LOSSES = Registry("loss", {name: f"ablate.train.losses:{name}" for name in _LOSSES})
OPTIMIZERS = Registry("optimizer", {name: f"ablate.train.optim:{name}" for name in ("adam", "adamw", "sgd")})
AUGMENTATIONS = Registry("augmentation", {})
FIGURES = Displays("figure", ("figures", "consolidated", "predictions"))
TABLES = Displays("table", ("tables", "claims", "failures"))

register_model = MODELS.register
register_dataset = DATASETS.register
register_loss = LOSSES.register
register_optimizer = OPTIMIZERS.register
register_augment = AUGMENTATIONS.register
register_figure = FIGURES.register
register_table = TABLES.register
