"""Weights & Biases: every trial a run, written by a thread that training never waits for, and never a prompt."""

from __future__ import annotations

import netrc
import os
import queue
import socket
import threading
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from ablate.records.paint import write_panel
from ablate.records.record import Record
from ablate.records.store import Results
from ablate.run.events import Begun, Dropped, Ended, Epoch, Event, one_line
from ablate.run.status import TrialFolders
from ablate.study.spec import StudySpec
from ablate.study.trial import Trial

# How long the end of a run waits for what is still queued: files are written for sure, a server may not answer.
CLOSE_SECONDS = {"offline": 60.0, "online": 10.0}
REACH_SECONDS = 5.0
INIT_SECONDS = 10.0
SERVER = "https://api.wandb.ai"
OFFLINE_ADVICE = "W&B runs were written offline; `wandb sync --yes {path}` sends them"


def resolve_mode(setting: str) -> str:
    """Return 'offline', 'online' or 'disabled': the study's word, else WANDB_MODE, else offline.

    Decided here and not by W&B, which would show a login menu on a terminal without a key.
    """
    if setting != "auto":
        return setting
    mode = os.environ.get("WANDB_MODE", "").lower()
    return {"dryrun": "offline", "run": "online"}.get(mode, mode) if mode else "offline"


def has_key() -> bool:
    """Return whether an online run could log in without asking."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def unreachable() -> str | None:
    """Return why W&B's server cannot be reached, or None where it can be or a proxy would have to be asked."""
    address = urlsplit(os.environ.get("WANDB_BASE_URL") or SERVER)
    if getproxies().keys() & {address.scheme, "all"}:
        return None
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((address.hostname or "", port), timeout=REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        return f"{address.netloc}: {one_line(error)}"
    return None


class Tracker:
    """Logs trials to W&B from a queue; what goes wrong there is one note at the end of the run."""

    title = "W&B"

    def __init__(self, spec: StudySpec, results: Results) -> None:
        self._spec, self._results, self._folders = spec, results, TrialFolders(results)
        self.notes: list[str] = []
        self.mode: Any = resolve_mode(spec.track.wandb)
        if self.mode not in ("offline", "online", "disabled"):
            self.notes.append(f"WANDB_MODE={self.mode} is not known: W&B runs are written offline")
            self.mode = "offline"
        if self.mode == "online" and not has_key():
            self.notes.append("no W&B key on this machine: runs are written offline (`wandb login` once, then sync)")
            self.mode = "offline"
        self._runs: dict[str, Any] = {}
        self._wrote = False
        self._queue: queue.Queue[Event | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        if self.mode != "disabled":
            # Here and not in the thread: while a worker is started the environment is the worker's, without a key.
            self._key = os.environ.get("WANDB_API_KEY")
            os.environ["WANDB_MODE"] = self.mode  # what W&B does not know there is an error to it
            # Its setting of this name comes too late; git would run what the working folder's configuration names.
            os.environ["WANDB_DISABLE_GIT"] = "true"
            self._thread = threading.Thread(target=self._serve, daemon=True)
            self._thread.start()

    def on(self, event: Event) -> None:
        """Queue an event of the run."""
        if self._thread is not None:
            self._queue.put(event)

    def close(self) -> list[str]:
        """Finish what is queued (for a bounded time) and say what there is to say."""
        if self._thread is None:
            return self.notes
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS[self.mode])
        if self._thread.is_alive():
            self.notes.append("W&B did not finish in time; the records are complete without it")
        if self.mode == "offline" and self._wrote:
            pattern = self._results.path / "wandb" / "offline-run-*"
            self.notes.append(OFFLINE_ADVICE.format(path=pattern))
        return self.notes

    # -- in the thread ------------------------------------------------------------------------------------

    def _serve(self) -> None:
        if self.mode == "online" and (reason := unreachable()) is not None:
            self.notes.append(f"W&B cannot be reached ({reason}): runs are written offline")
            self.mode = "offline"
        while (event := self._queue.get()) is not None:
            try:
                self._take(event)
            except Exception as error:  # whatever W&B raises, training goes on
                text = f"W&B: {one_line(error)[:200]}"
                if self.mode == "online":
                    self.mode = "offline"
                    text += "; further runs are written offline"
                if text not in self.notes:
                    self.notes.append(text)
        for run in self._runs.values():
            run.finish(exit_code=1)

    def _take(self, event: Event) -> None:
        if isinstance(event, Begun):
            self._begin(event.trial)
        elif isinstance(event, Epoch):
            self._log(event)
        elif isinstance(event, Ended):
            self._end(event.trial, event.record)
        elif isinstance(event, Dropped):
            self._drop(event.trial)

    def _begin(self, trial: Trial) -> None:
        import wandb

        config = {"lr": trial.train["lr"], "variant": trial.variant, "seed": trial.seed, **trial.settings}
        config |= {"model": trial.model, "data": trial.data, "train": trial.train, "key": trial.key}
        self._runs[trial.name] = wandb.init(
            project=self._spec.track.project or self._spec.study,
            entity=self._spec.track.entity,
            group=f"{self._spec.study}/{trial.variant}",
            job_type=trial.variant,
            name=trial.name,
            tags=[self._spec.study, trial.variant],
            config=config,
            dir=str(self._results.path),
            mode=self.mode,
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT") or INIT_SECONDS),
                console="off",
                api_key=self._key if self.mode == "online" else None,
                disable_git=True,
                x_disable_stats=True,
                x_disable_meta=True,
                x_save_requirements=False,
            ),
        )
        self._wrote = True

    def _log(self, event: Epoch) -> None:
        if event.trial in self._runs:
            row = {
                "train/loss": event.train_loss,
                "val/loss": event.val_loss,
                "val/mean_iou": event.val_mean_iou,
                "lr": event.lr,
            }
            self._runs[event.trial].log({k: v for k, v in row.items() if v is not None}, step=event.epoch)

    def _end(self, trial: Trial, record: Record) -> None:
        run = self._runs.pop(trial.name, None)
        if run is None:
            return
        run.summary["status"] = record.status
        if record.reason:
            run.summary["reason"] = record.reason
        for name, value in record.metrics.items():
            split, _, rest = name.partition("_")
            run.summary[f"{split}/{rest}" if split in ("val", "test") else name] = value
        folder = self._folders.of(trial.key, trial.name)
        panel = (
            write_panel(self._results, folder.name, folder.path / ".panel.png") if record.status == "complete" else None
        )
        if panel is not None:
            import wandb

            run.log({"panel": wandb.Image(str(panel), caption="image, truth, prediction, error")})
        run.finish(exit_code=0 if record.status != "failed" else 1)
        if panel is not None:
            panel.unlink(missing_ok=True)

    def _drop(self, trial: Trial) -> None:
        run = self._runs.pop(trial.name, None)
        if run is not None:
            run.summary["status"] = "interrupted"
            run.finish(exit_code=1)
