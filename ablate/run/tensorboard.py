"""TensorBoard: every trial a folder of event files; what a resumed trial computes again takes the earlier's place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ablate.records.record import Record
from ablate.records.store import Results
from ablate.run.tracker import Tracker, beside_curves, settings
from ablate.study.study import Study
from ablate.study.trial import Trial


class TensorBoardTracker(Tracker):
    """Writes trials below `tensorboard/` in the results folder."""

    title = "TensorBoard"

    def __init__(self, study: Study, results: Results) -> None:
        super().__init__(study, results)
        self.folder = results.path / "tensorboard"
        self.start()

    def close(self) -> list[str]:
        """Finish, and say how the files are looked at."""
        return [*super().close(), f"`tensorboard --logdir {self.folder}` shows the trials' curves"]

    def begin(self, trial: Trial) -> dict[str, Any]:
        """Return where the trial's events go; the writer follows with the first epoch."""
        return {"folder": self.folder / trial.name}

    def log(self, run: dict[str, Any], epoch: int, values: dict[str, float]) -> None:
        """Log an epoch."""
        writer = run["writer"] if "writer" in run else run.setdefault("writer", _writer(run["folder"], epoch))
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)
        run["epoch"] = epoch

    def end(self, run: dict[str, Any], trial: Trial, record: Record) -> None:
        """Log settings and metrics, as the HParams tab compares them, and the panel of predictions."""
        writer = run.get("writer") or _writer(run["folder"], None)
        given = {name: value for name, value in settings(trial).items() if not isinstance(value, dict)}
        given = {name: value if isinstance(value, bool | int | float) else str(value) for name, value in given.items()}
        epoch = run.get("epoch", 0)
        writer.add_hparams(given | {"status": record.status}, beside_curves(record), run_name=".", global_step=epoch)
        with self.panel(trial, record) as panel:
            if panel is not None:
                with Image.open(panel) as image:
                    writer.add_image("panel", np.asarray(image), epoch, dataformats="HWC")
        writer.close()

    def interrupt(self, run: dict[str, Any]) -> None:
        """Write what is there."""
        if "writer" in run:
            run["writer"].close()


def _writer(folder: Path, epoch: int | None) -> Any:
    """Return a writer of the trial's events that has TensorBoard forget those of `epoch` and later."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=epoch)
