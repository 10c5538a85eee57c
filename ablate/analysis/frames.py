"""Records on disk to tidy frames: `load_results(path)`. Free of torch and optuna; nothing on disk is changed.

`Frames` has

- `trials`, a row a planned trial: `name key variant setting <axes> seed role status reason`, every metric of the record
  (`best_epoch epochs_run val_mean_iou test_mean_iou val_loss test_loss …`), `val_score test_score` (the mIoU that
  counts: 0 for a diverged trial, NaN for one without a result), `schedule`, the measures of `STABILITY`, `lr_headroom`
  (the least of the probed points), `test_mean_iou_images test_mean_iou_classes test_worst_images`, `wall_s`,
  `folder`, and `missing` (measure -> why it is NaN). `status` is that of the record, or "missing".
- `epochs`: `key variant setting <axes> seed epoch train_loss val_loss val_mean_iou`, NaN where not finite
- `classes`: `key variant setting <axes> seed split class tp fp fn iou dice`
- `images`: `key variant setting <axes> seed split image mean_iou loss` (loss in nats, test only)
- `layers`: `key variant setting <axes> seed measure layer point value`
- `throughput`: `variant round train_images_per_s inference_images_per_s`

and, by trial key, `counts`, `steps`, `preds`. `setting` is the text that identifies a setting: "lr=3e-4".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.folder import Folder, read_folder
from ablate.analysis.source import Maps, Source
from ablate.analysis.trials import epochs_frame, layers_frame, numbered_classes, numbered_images, trials_frame
from ablate.measure import segmentation
from ablate.measure.detail_sizes import DetailTargets
from ablate.study.spec import StudySpec
from ablate.study.trial import Setting

SPLITS = ("val", "test")


@dataclass(frozen=True, eq=False)
class Frames:
    """A results folder as tidy pandas; the columns are listed at the top of this module.

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
    source: Source
    unreadable: Mapping[Path, str]
    """Records that cannot be read, with the reason; their trials have the status "missing"."""

    @cached_property
    def variants(self) -> tuple[str, ...]:
        """The variants in the order of the plan."""
        return tuple(dict.fromkeys(self.trials["variant"]))

    @property
    def baseline(self) -> str:
        """The variant that the others are compared with: the study's, else the first."""
        return self.study.baseline or self.variants[0]

    @property
    def searched_rates(self) -> tuple[float, float] | None:
        """The range of learning rates of a search; None without one, or where it lists choices."""
        space = self.study.search.space.get("lr") if self.study.search is not None else None
        if space is None or space.low is None or space.high is None or space.low <= 0:
            return None
        return float(space.low), float(space.high)

    @cached_property
    def levels(self) -> pd.DataFrame:
        """The levels of every setting: a row a setting (the index), a column an axis."""
        return self.trials.drop_duplicates("setting").set_index("setting")[list(self.axes)]

    @cached_property
    def detail_target(self) -> DetailTargets:
        """The target's side of the measures of fine detail; `ResultsError` where the folder has no targets."""
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
        """A row an epoch of a trial."""
        return epochs_frame(self.trials, self.axes, self.source)

    @cached_property
    def layers(self) -> pd.DataFrame:
        """A row a probed value."""
        return layers_frame(self.trials, self.axes, self.source)

    @cached_property
    def classes(self) -> pd.DataFrame:
        """A row a class of a split of a complete trial, counted over the whole split."""
        parts = []
        for row, split, counts in self._counted():
            total = counts.sum(axis=0)
            part = {"class": list(self.class_names), "iou": segmentation.iou(total), "dice": segmentation.dice(total)}
            part |= {name: total[:, place] for place, name in enumerate(("tp", "fp", "fn"))}
            parts.append(self._rows(row, {"split": split} | part))
        columns = [*self._identity_columns, "split", "class", "tp", "fp", "fn", "iou", "dice"]
        return _concat(parts, columns)

    @cached_property
    def images(self) -> pd.DataFrame:
        """A row an image of a split of a complete trial."""
        parts = []
        for row, split, counts in self._counted():
            loss = self.source.image_loss(row["key"]) if split == "test" else None
            part = {
                "image": list(self.names[split]),
                "mean_iou": segmentation.per_image_mean_iou(counts),
                "loss": np.full(len(counts), np.nan) if loss is None else loss,
            }
            parts.append(self._rows(row, {"split": split} | part))
        return _concat(parts, [*self._identity_columns, "split", "image", "mean_iou", "loss"])

    @cached_property
    def throughput(self) -> pd.DataFrame:
        """A row a variant and round of the closing profile; empty where there was none."""
        columns = ["variant", "round", "train_images_per_s", "inference_images_per_s"]
        parts = []
        profiled = self.profile.get("variants", {})
        for variant in sorted(profiled, key=lambda name: self.variants.index(name) if name in self.variants else -1):
            entry = profiled[variant]
            rates = {name: np.asarray(entry.get(name) or [], dtype=float) for name in columns[2:]}
            rounds = max((len(values) for values in rates.values()), default=0)
            padded = {name: np.pad(v, (0, rounds - len(v)), constant_values=np.nan) for name, v in rates.items()}
            parts.append(pd.DataFrame({"variant": variant, "round": np.arange(rounds), **padded}))
        return _concat(parts, columns)

    def counts(self, key: str) -> dict[str, np.ndarray]:
        """tp, fp, fn per image and class of a complete trial: "val" and "test", int64 (N, C, 3).

        Raises `ResultsError` where the trial has none.
        """
        return self.source.counts(key)

    def steps(self, key: str) -> np.ndarray:
        """Training loss and gradient norm of every step: float32 (steps, 2)."""
        return self.source.steps(key)

    def preds(self, key: str) -> Maps:
        """The test predictions as class indices: uint8 (N, H, W), or a list of N maps (h, w) where sizes differ."""
        return self.source.preds(key)

    @cached_property
    def target(self) -> Maps:
        """The test targets as class indices, `ignore_index` where ignored; in the form of `preds`."""
        return self.source.target()

    @property
    def _identity_columns(self) -> list[str]:
        return ["key", "variant", "setting", *self.axes, "seed"]

    def _rows(self, row: Mapping[str, Any], part: Mapping[str, Any]) -> pd.DataFrame:
        """`part` as a frame whose every row names the trial `row`; a level may be a tuple, which is one value."""
        frame = pd.DataFrame(part)
        for place, name in enumerate(self._identity_columns):
            level = row[name]
            frame.insert(place, name, [level] * len(frame) if isinstance(level, tuple) else level)
        return frame

    def _counted(self) -> list[tuple[dict[str, Any], str, np.ndarray]]:
        complete = self.trials[self.trials["status"] == "complete"]
        return [
            ({str(name): value for name, value in row.items()}, split, self.source.counts(row["key"])[split])
            for row in complete.to_dict("records")
            for split in SPLITS
        ]


def load_results(path: Path | str) -> Frames:
    """The results folder at `path` as frames, finished or not.

    Raises `ResultsError` where there is no study, or what should be read cannot be; a damaged trial is no error but a
    row with the status "missing" (see `Frames.unreadable`).
    """
    return frames_of(read_folder(path))


def frames_of(folder: Folder) -> Frames:
    """The frames of what was read of a results folder."""
    run, index, source = folder.run, folder.index, folder.source
    trials = trials_frame(folder)
    class_names = tuple(index.get("classes") or run.get("data", {}).get("classes") or numbered_classes(trials, source))
    return Frames(
        path=folder.path,
        study=folder.study,
        run=run,
        profile=folder.profile,
        axes=folder.axes,
        settings=folder.settings,
        class_names=class_names,
        palette=tuple(tuple(colour) for colour in index.get("palette", ())),
        names=_names(index, source, trials),
        groups={"val": _tuple(index.get("val_groups")), "test": _tuple(index.get("groups"))},
        ignore_index=int(index.get("ignore_index", segmentation.IGNORE_INDEX)),
        trials=trials,
        source=source,
        unreadable=folder.unreadable,
    )


def _names(index: Mapping[str, Any], source: Source, trials: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    named = {"val": index.get("val_names"), "test": index.get("names")}
    return {split: _tuple(named[split]) or numbered_images(trials, source, split) for split in SPLITS}


def _tuple(values: Any) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def _concat(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True)[columns]
