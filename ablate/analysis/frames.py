"""Records on disk to tidy frames: `load_results(path)`. Free of torch and optuna; nothing on disk is changed.

The columns of every frame stand in `ablate.analysis.schema`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.load import CURVES, Arrays, Maps, read_plan, read_spec, read_steps, read_trials
from ablate.errors import ResultsError, visible
from ablate.measure import segmentation
from ablate.measure.detail import DetailTargets
from ablate.records.images import unpack_maps
from ablate.records.record import FINISHED
from ablate.records.store import Results, read_json
from ablate.registry import MEASURES
from ablate.study.spec import StudySpec
from ablate.study.trial import Setting

SPLITS = ("val", "test")


@dataclass(frozen=True, eq=False, repr=False)
class Frames:
    """A results folder as tidy pandas, and by trial key the arrays behind it.

    `groups` and `names` are by split ("val", "test"); groups are None where images are independent.
    """

    path: Path
    study: StudySpec
    run: Mapping[str, Any]
    profile: Mapping[str, Any]
    axes: tuple[str, ...]
    settings: Mapping[str, Setting]
    """Every setting of the plan, by the text that the frames' column `setting` holds."""
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    names: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, tuple[str, ...] | None]
    ignore_index: int
    trials: pd.DataFrame
    arrays: Mapping[str, Arrays]
    """The content of the files of every trial, by its key."""
    unreadable: Mapping[Path, str]
    """Records that cannot be read, with the reason; their trials have the status "missing"."""
    labelled_pixels: int | None = None
    """Test pixels that are scored where a pixel may bear several classes; None where each bears one."""

    def __repr__(self) -> str:
        done = int(self.trials["status"].isin(FINISHED).sum())
        return f"<Results of {self.study.study}: {done} of {len(self.trials)} trials done, in {self.path}>"

    def _repr_html_(self) -> str:
        """Return how a notebook shows the results: a row a variant and setting, with its seeds and mean scores."""
        cells = self.trials.groupby(["variant", "setting"], sort=False)
        shown = cells[["val_score", "test_score"]].mean().assign(trials=cells.size())
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{shown.to_html(float_format='{:.4f}'.format)}"

    @cached_property
    def variants(self) -> tuple[str, ...]:
        """Return the variants in the order of the plan."""
        return tuple(dict.fromkeys(self.trials["variant"]))

    @property
    def baseline(self) -> str:
        """Return the variant that the others are compared with: the study's, else the first."""
        return self.study.baseline or self.variants[0]

    @cached_property
    def controls(self) -> frozenset[str]:
        """Return the variants that are A/A copies of another."""
        return frozenset(name for name, spec in self.study.variants.items() if spec.control and name != self.baseline)

    @cached_property
    def against(self) -> dict[str, str]:
        """Return what every variant is compared with: the baseline, or for an A/A control what it copies."""
        found = {name: self.baseline for name in self.variants if name != self.baseline}
        settings = {name: (spec.difference, spec.train, spec.data) for name, spec in self.study.variants.items()}
        for name in self.controls & set(found):
            alike = [other for other in settings if other not in self.controls and settings[other] == settings[name]]
            if alike and self.baseline not in alike:
                found[name] = alike[0]
        return found

    @property
    def families(self) -> list[list[str]]:
        """Return the variants whose p-values are corrected together: every A/A control by itself costs no other."""
        alone = [[name] for name in self.against if name in self.controls]
        return [[name for name in self.against if name not in self.controls], *alone]

    @property
    def searched_rates(self) -> tuple[float, float] | None:
        """Return the range of learning rates of a search; None without one, or where it lists choices."""
        space = self.study.search.space.get("lr") if self.study.search is not None else None
        if space is None or space.low is None or space.high is None or space.low <= 0:
            return None
        return float(space.low), float(space.high)

    @cached_property
    def levels(self) -> pd.DataFrame:
        """Return the levels of every setting: a row a setting (the index), a column an axis."""
        return self.trials.drop_duplicates("setting").set_index("setting")[list(self.axes)]

    @property
    def multilabel(self) -> bool:
        """Return whether a pixel may bear several classes."""
        return self.labelled_pixels is not None

    @cached_property
    def detail_target(self) -> DetailTargets:
        """Return the target's side of the measures of fine detail; `ResultsError` where there is none."""
        if self.multilabel:
            raise ResultsError("boundaries and thin structures are those of maps in which a pixel bears one class")
        return DetailTargets(self.target, len(self.class_names), self.ignore_index)

    @property
    def resolution(self) -> str:
        """At which size the test split was scored, in words that end a sentence: "at 64 × 96 pixels"."""
        if self.study.measure.native:
            return "at the masks' own size (logits enlarged bilinearly)"
        size = self.run.get("data", {}).get("size") or self.study.data.settings.get("size")
        return f"at {size[0]} × {size[1]} pixels" if size else "at the size trained at"

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """Return a row an epoch of a trial."""
        begun: list[int] = []
        tables: list[np.ndarray] = []
        for place, key in enumerate(self.trials["key"].tolist()):
            try:
                table = self.arrays[key].curves
            except ResultsError:
                continue  # not begun
            begun.append(place)
            tables.append(table)
        values = np.concatenate(tables) if tables else np.empty((0, 1 + len(CURVES)))
        curves = {name: values[:, place] for place, name in enumerate(CURVES, start=1)}
        return self._repeated(begun, list(map(len, tables))).assign(epoch=values[:, 0].astype(int), **curves)

    @cached_property
    def layers(self) -> pd.DataFrame:
        """Return a row a probed value."""
        return self.layers_of(self.trials)

    def layers_of(self, trials: pd.DataFrame) -> pd.DataFrame:
        """Return a row a probed value of these trials, of those with a record; `point` counts the probes from 0."""
        identity = self._identity_columns
        rows = [
            [*(row[name] for name in identity), measure, layer, point, math.nan if value is None else value]
            for row in trials.to_dict("records")
            for measure, layers in self.arrays[row["key"]].layers.items()
            for layer, values in layers.items()
            for point, value in enumerate(values)
        ]
        return pd.DataFrame(rows, columns=[*identity, "measure", "layer", "point", "value"])

    @cached_property
    def classes(self) -> pd.DataFrame:
        """Return a row a class of a split of a complete trial, counted over the whole split."""
        counted = self._counted()
        totals = np.array([counts.sum(axis=0) for _, _, counts in counted], dtype=np.int64).reshape(-1, 3)
        columns: dict[str, Any] = {"split": [split for _, split, _ in counted for _ in self.class_names]}
        columns |= {"class": [*self.class_names] * len(counted)} | dict(zip(("tp", "fp", "fn"), totals.T, strict=True))
        columns |= {"iou": segmentation.iou(totals), "dice": segmentation.dice(totals)}
        return self._repeated([place for place, _, _ in counted], len(self.class_names)).assign(**columns)

    @cached_property
    def images(self) -> pd.DataFrame:
        """Return a row an image of a split of a complete trial."""
        counted = self._counted()
        losses = [
            self.arrays[self.trials["key"].iloc[place]].images["test_loss"]
            if split == "test"
            else [np.nan] * len(counts)
            for place, split, counts in counted
        ]
        return self._repeated([place for place, _, _ in counted], [len(counts) for _, _, counts in counted]).assign(
            split=[split for _, split, counts in counted for _ in counts],
            image=[name for _, split, _ in counted for name in self.names[split]],
            mean_iou=[score for _, _, counts in counted for score in segmentation.per_image_mean_iou(counts)],
            loss=[loss for own in losses for loss in own],
        )

    @cached_property
    def throughput(self) -> pd.DataFrame:
        """Return a row a variant and round of the closing profile; empty where there was none."""
        columns = ["variant", "round", "train_images_per_s", "inference_images_per_s"]
        parts = []
        profiled = self.profile.get("variants", {})
        for variant in sorted(profiled, key=lambda name: self.variants.index(name) if name in self.variants else -1):
            rates = {name: pd.Series(profiled[variant].get(name) or [], dtype=float) for name in columns[2:]}
            parts.append(pd.DataFrame(rates).rename_axis("round").reset_index().assign(variant=variant))
        return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)

    def counts(self, key: str) -> dict[str, np.ndarray]:
        """Return tp, fp, fn per image and class of a complete trial: "val" and "test", int64 (N, C, 3).

        Raises `ResultsError` where the trial has none.
        """
        return self.arrays[key].counts

    def steps(self, key: str) -> np.ndarray:
        """Return training loss and gradient norm of every step: float32 (steps, 2)."""
        return read_steps(self.arrays[key].folder.steps)  # not kept: those of thousands fill the memory

    def preds(self, key: str) -> Maps:
        """Return the test predictions as class indices.

        Uint8 (N, H, W), or a list of N maps (h, w) where sizes differ.
        """
        return self.arrays[key].preds

    @cached_property
    def target(self) -> Maps:
        """Return the test targets as class indices, `ignore_index` where ignored; in the form of `preds`.

        Where `multilabel`, both are sums of 2^class.
        """
        path = Results(self.path).test / "targets.zip"
        if not path.exists():
            raise ResultsError("the results folder holds no test masks", file=str(path))
        return unpack_maps(path)

    @property
    def _identity_columns(self) -> list[str]:
        return ["key", "variant", "setting", *self.axes, "seed"]

    def _repeated(self, places: list[int], times: int | list[int]) -> pd.DataFrame:
        """Return what identifies the trials at these places, each in so many rows."""
        # Columns of the whole study rather than a frame a trial: thousands of small frames take minutes to join.
        return self.trials[self._identity_columns].iloc[np.repeat(places, times).astype(int)].reset_index(drop=True)

    def _counted(self) -> list[tuple[int, str, np.ndarray]]:
        """Return the place in `trials`, the split and the counts of both splits of every complete trial."""
        complete = np.flatnonzero(self.trials["status"] == "complete").tolist()
        keys = self.trials["key"].tolist()
        return [(place, split, counts) for place in complete for split, counts in self.counts(keys[place]).items()]


def load_results(path: Path | str) -> Frames:
    """Read the results folder at `path` as frames, finished or not.

    Raises `ResultsError` where there is no study, or what should be read cannot be; a damaged trial is no error but a
    row with the status "missing" (see `Frames.unreadable`).
    """
    results = Results(path)
    study, run = read_spec(results.study), results.read_run()
    index = read_json(results.test / "index.json") or {}
    planned, unreadable = read_plan(results, run)
    axes = tuple(dict.fromkeys(["lr", *(axis for entry, _ in planned for axis in entry["settings"])]))
    found = read_trials(planned, axes, study)
    arrays = {row["key"]: own for row, own, _ in found}
    # What names nothing is numbered, as far as the counts of a complete trial go.
    complete = next((arrays[row["key"]].counts for row, _, _ in found if row["status"] == "complete"), None)
    counted = {split: (0, 0) if complete is None else complete[split].shape[:2] for split in SPLITS}

    def names(given: Any, split: str, axis: int) -> tuple[str, ...]:
        return _tuple(given) or tuple(map(str, range(counted[split][axis])))

    return Frames(
        path=results.path,
        study=study,
        run=run,
        profile=read_json(results.profile) or {},
        axes=axes,
        settings={setting.text: setting for setting in (Setting(entry["settings"]) for entry, _ in planned)},
        class_names=names(index.get("classes") or run.get("data", {}).get("classes"), "test", 1),
        palette=tuple(tuple(colour) for colour in index.get("palette", ())),
        names={"val": names(index.get("val_names"), "val", 0), "test": names(index.get("names"), "test", 0)},
        groups={"val": _tuple(index.get("val_groups")), "test": _tuple(index.get("groups"))},
        ignore_index=int(index.get("ignore_index", segmentation.IGNORE_INDEX)),
        trials=_trials_frame([row for row, _, _ in found], axes),
        arrays=arrays,
        unreadable=unreadable | {own.folder.record: problem for _, own, problem in found if problem},
        labelled_pixels=(index.get("labelled_pixels") or 0) if index.get("multilabel") else None,
    )


def _trials_frame(rows: list[dict[str, Any]], axes: Sequence[str]) -> pd.DataFrame:
    """Return a row a planned trial."""
    columns = ["name", "key", "variant", "setting", *axes, "seed", "role", "status", "reason"]
    # Columns that exist whatever the trials left behind, so that a study without a result has them too.
    always = ["val_mean_iou", "test_mean_iou", "val_score", "test_score", *MEASURES, "wall_s"]
    frame = pd.DataFrame(rows)
    frame = frame.reindex(columns=list(dict.fromkeys([*columns, *always, *frame.columns, "schedule", "loss_function"])))
    return frame.astype(dict.fromkeys(always, float))


def _tuple(values: Any) -> tuple[str, ...] | None:
    """Return names as they can be shown: those of files may have control characters."""
    return None if values is None else tuple(map(visible, values))
