"""Tests of a plugin's parts, as `ablate check-plugin` and a plugin's own tests run them: `check("model", "my_net")`.

Each part takes its place in a tiny study on generated images, which is run for real on the CPU: first the dry pass of
every study (shapes, types, both modes, seeds), then trials (the same one twice with another between, and once stopped
and resumed), whose files have to be equal to the last bit. What breaks is a `PluginError` of one line, at the plugin's.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.frames import load_results
from ablate.errors import AblateError, PluginError, Problem, nearest
from ablate.plugins import Plugins, load_plugins, reported
from ablate.records.record import Record
from ablate.records.store import Results, read_record
from ablate.registry import AUGMENTATIONS, DATASETS, FIGURES, LOSSES, MEASURES, MODELS, OPTIMIZERS, TABLES, Registry
from ablate.report.lookup import NotDrawn
from ablate.report.tables.table import Table
from ablate.run.plan.dry import load_data
from ablate.run.setup import prepare
from ablate.study.components import signature
from ablate.study.reader import read_study
from ablate.study.spec import MeasureSpec
from ablate.train.context import Context
from ablate.train.loop import Interrupted, Options, run_trial
from ablate.train.losses import takes_multilabel
from ablate.wording import short_path

# By the words of their decorators: `ablate.register_model` registers a "model".
TRAINED: Mapping[str, Registry] = {
    "model": MODELS, "dataset": DATASETS, "loss": LOSSES, "optimizer": OPTIMIZERS, "augment": AUGMENTATIONS,
}  # fmt: skip
SHOWN: Mapping[str, Registry] = {"figure": FIGURES, "table": TABLES}
STOPPED_AFTER = 3
MEASURE = MeasureSpec(gradients=0, profile=False)


def check(kind: str, name: str, **settings: Any) -> None:
    """Raise `PluginError` where the component `name`, made with `settings`, breaks the contract of its kind.

    `kind` is the word of its decorator: "model", "dataset", "loss", "optimizer", "augment", "measure", "figure" or
    "table". A loss that takes `multilabel` is tried on such data as well. Raises `DataError` for data that cannot be
    used.
    """
    if kind in TRAINED:
        _check_trained(kind, name, settings)
    elif kind in SHOWN:
        with _rehearsed() as analysis:
            _check_shown(SHOWN[kind], name, analysis)
    elif kind == "measure" and name in MEASURES:
        with _rehearsed():
            pass  # its results have every measure
    else:
        unknown, known = (name, MEASURES) if kind == "measure" else (kind, [*TRAINED, "measure", *SHOWN])
        raise PluginError(
            f"unknown {'measure' if known is MEASURES else 'kind'} '{unknown}'", cure=nearest(unknown, known)
        )


def _check_shown(registry: Registry, name: str, analysis: Analysis) -> None:
    kinds = (Figure,) if registry is FIGURES else (Table, DataFrame)
    with reported(registry, name):
        try:
            made = registry.get(name)(analysis)
        except NotDrawn:
            return
    if not isinstance(made, kinds):
        raise registry.broken(name, f"expected a {kinds[-1].__name__}, got a {type(made).__name__}")


def check_plugin(path: Path | str) -> Iterator[str]:
    """Load a plugin file and check all that it registers; yield a line for each part that keeps its contract.

    Raises `PluginError` with all that is wrong when every part has been looked at.
    """
    load_plugins([path], entry_points=False)
    own = f"{short_path(Path(path).absolute())}:"
    trained = [(kind, name) for kind in TRAINED for name in TRAINED[kind] if TRAINED[kind].source(name).startswith(own)]
    shown = [
        (registry, name) for registry in SHOWN.values() for name in registry if registry.source(name).startswith(own)
    ]
    measures = [name for name, measure in MEASURES.items() if measure.source.startswith(own)]
    if not trained and not shown and not measures:
        raise PluginError("registers nothing", file=str(path), cure='begin with @ablate.register_model("my_model")')
    problems: list[Problem] = []
    for kind, name in trained:
        registry = TRAINED[kind]
        if kind not in ("loss", "optimizer") and (needed := signature(registry, name).missing({})):
            told = f"it has no default for {', '.join(needed)}; `ablate check STUDY --plugin {path}` checks it"
            yield f"{registry.kind} '{name}': not checked, {told}"
            continue
        try:
            _check_trained(kind, name, {})
            yield f"{registry.kind} '{name}': keeps its contract"
        except AblateError as error:
            problems += error.problems
    if shown or measures:
        try:
            with _rehearsed() as analysis:
                for name in measures:
                    trial = analysis.frames.trials.iloc[0]
                    yield f"measure '{name}': {trial['missing'].get(name) or format(trial[name], 'g')} in a rehearsal"
                for registry, name in shown:
                    try:
                        _check_shown(registry, name, analysis)
                        yield f"{registry.kind} '{name}': is made of a rehearsal's results"
                    except PluginError as error:
                        problems += error.problems
        except PluginError as error:  # of a measure, without which nothing is shown
            problems += error.problems
    if problems:
        raise PluginError(dict.fromkeys(problems))


@contextmanager
def _rehearsed() -> Iterator[Analysis]:
    """Give the analysis of the plain rehearsal, trained for real."""
    with tempfile.TemporaryDirectory() as folder:
        rehearsal = _Rehearsal(Path(folder), {})
        for trial in rehearsal.study.trials():
            run_trial(trial, rehearsal.context, rehearsal.results.trial(trial.name), Options(MEASURE))
        yield analyse(load_results(rehearsal.results.path))


def _check_trained(kind: str, name: str, settings: Mapping[str, Any]) -> None:
    _check_repeated(kind, name, settings)
    if kind == "loss" and takes_multilabel(LOSSES.get(name)):
        _check_repeated(kind, name, settings, several=True)


def _check_repeated(kind: str, name: str, settings: Mapping[str, Any], *, several: bool = False) -> None:
    with tempfile.TemporaryDirectory() as folder:
        registry = TRAINED[kind]
        with reported(registry, name):
            data = {"dataset": _write_multilabel(Path(folder))} if several else {}
            rehearsal = _Rehearsal(Path(folder), {kind: {"name": name, **settings}, **data})
            first = rehearsal.train(0, "first")
            rehearsal.train(1, "between")
            again = rehearsal.train(0, "again")
            rehearsal.context = rehearsal.fresh_context()
            resumed = rehearsal.train(0, "resumed", stopped=True)
        if first.status == "complete" and _numbers(again) != _numbers(first):
            cure = "keep nothing between two trainings, and draw from torch's generators only"
            raise registry.broken(name, "trained to other numbers the second time in one process", cure)
        if first.status == "complete" and _numbers(resumed) != _numbers(first):
            cure = "what changes while it trains has to be in the state_dict of the model or the optimizer"
            raise registry.broken(name, "trained to other numbers when it was stopped and resumed", cure)


def _numbers(record: Record) -> Any:
    return record.files, record.metrics


def _write_multilabel(folder: Path) -> dict[str, Any]:
    """Write images of noise whose pixels bear up to two classes, and return the settings of their data set."""
    draw = np.random.default_rng(0)
    for kind, shape, values in (("image", (32, 48, 3), 256), ("mask", (32, 48), 4)):
        (folder / kind).mkdir()
        for number in range(12):
            np.save(folder / kind / f"{number}.npy", draw.integers(0, values, shape, np.uint8))
    places = {"root": str(folder), "images": "image/*.npy", "masks": "mask/*.npy"}
    return {"name": "folder", **places, "classes": {"first": {"bit": 0}, "second": {"bit": 1}}}


class _Rehearsal:
    """A study of two networks and two seeds in a folder, with some of its components replaced."""

    def __init__(self, folder: Path, components: Mapping[str, Mapping[str, Any]]) -> None:
        data = components.get("dataset", {"name": "street", "size": [32, 48], "train": 8, "val": 2, "test": 2})
        train: dict[str, Any] = {"epochs": 2, "batch_size": 2, "lr": 1e-3}
        train |= {kind: dict(part) for kind, part in components.items() if kind in ("loss", "optimizer", "augment")}
        document = {
            "study": "rehearsal",
            "data": data,
            "model": components.get("model", {"name": "unet", "width": 4, "depth": 2}),
            "variants": {"whole": {}} if "model" in components else {"whole": {}, "noskip": {"skip": "none"}},
            "seeds": 2,
            "train": train,
            "measure": MEASURE.model_dump(mode="json"),
            "run": {"devices": ["cpu"], "engine": "eager", "workers": 1, "threads": 1},
        }
        path = folder / "study.yaml"
        path.write_text(json.dumps(document), encoding="utf-8")
        self.study = read_study(path)
        self.results = Results(folder / "results")
        self.results.trials.mkdir(parents=True)
        dataset = load_data(self.study, again=True)
        self.prepared = prepare(self.study, self.results, plugins=Plugins(), allow_code_change=False, dataset=dataset)
        self.context = self.fresh_context()

    def fresh_context(self) -> Context:
        """Return a context in which nothing has been trained yet."""
        return Context("cpu", self.prepared.decisions, self.study.base, self.prepared.fingerprints)

    def train(self, seed: int, place: str, *, stopped: bool = False) -> Record:
        """Return the record of the first variant's trial, kept in the folder `place`; `stopped`: once on the way."""
        trial = self.study.cell("whole", {}, (seed,))[0]
        folder = Results(self.results.path.with_name(place)).trial(trial.name)
        if stopped:
            calls = iter(range(1_000_000))
            stop = Options(MEASURE, should_stop=lambda: "rehearsal" if next(calls) == STOPPED_AFTER else None)
            with suppress(Interrupted):
                run_trial(trial, self.context, folder, stop)
            self.context = self.fresh_context()
        run_trial(trial, self.context, folder, Options(MEASURE))
        record = read_record(folder.record)
        assert record is not None
        return record
