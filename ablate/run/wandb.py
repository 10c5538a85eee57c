"""Weights & Biases: every trial one run for its whole life, and never a prompt."""

from __future__ import annotations

import configparser
import logging
import netrc
import os
import shlex
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from ablate.errors import ResultsError
from ablate.records.files import read_file
from ablate.records.record import Record
from ablate.records.store import Results
from ablate.run.events import one_line
from ablate.run.tracker import Tracker, outcome, settings
from ablate.study.study import Study
from ablate.study.trial import Trial

# How long the end of a run waits for what is still queued: files are written for sure, a server may not answer.
CLOSE_SECONDS = {"offline": 60.0, "online": 10.0}
REACH_SECONDS = 5.0
INIT_SECONDS = 10.0
SERVER = "https://api.wandb.ai"
# Settings files of the working folder, which W&B obeys before anything is said to it, and what they may say.
LOCAL_SETTINGS, NAMES_ONLY = (
    ("wandb/settings", ".wandb/settings"),
    {"entity", "project", "mode", "anonymous", "base_url"},
)
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


def strange_settings() -> str:
    """Return the settings file of the working folder that says more than `wandb init` writes, or names another server.

    "" where there is none. It may have come with a stranger's study, and could send files and the user's key elsewhere.
    The user's servers are W&B's own and those of `WANDB_BASE_URL` and of `wandb login --host`.
    """
    given = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    home = os.path.expanduser(given)  # noqa: PTH111 (Path.expanduser raises where there is no home)
    own = (SERVER, os.environ.get("WANDB_BASE_URL", ""), (_said(Path(home, "settings")) or {}).get("base_url", ""))
    for name in LOCAL_SETTINGS:
        said = _said(Path(name))
        if said is None or said.keys() - NAMES_ONLY:
            return name
        if said.get("base_url", SERVER).rstrip("/") not in [server.rstrip("/") for server in own]:
            return name
    return ""


def _said(path: Path) -> dict[str, str] | None:
    """Return what a settings file of W&B says, {} where there is none, None where it cannot be read."""
    parser = configparser.ConfigParser()
    try:
        parser.read_string(read_file(path, 2**20).decode())
        return dict(parser.items("default"))
    except (FileNotFoundError, NotADirectoryError, configparser.NoSectionError):
        return {}
    except (OSError, ValueError, ResultsError, configparser.Error):
        return None


class WandbTracker(Tracker):
    """Logs trials to W&B."""

    title = "W&B"

    def __init__(self, study: Study, results: Results) -> None:
        super().__init__(study, results)
        self.mode: Any = resolve_mode(self.spec.track.wandb)
        if self.mode not in ("offline", "online", "disabled"):
            self.notes.append(f"WANDB_MODE={self.mode} is not known: W&B runs are written offline")
            self.mode = "offline"
        if self.mode == "online" and not has_key():
            self.notes.append("no W&B key on this machine: runs are written offline (`wandb login` once, then sync)")
            self.mode = "offline"
        self._wrote = False
        if self.mode != "disabled" and (found := strange_settings()):
            cure = "move it away, or run from another folder"
            self.notes.append(
                f"W&B is off: {found} of this folder would decide where its files and your key go; {cure}"
            )
            self.mode = "disabled"
        if self.mode == "disabled":
            return
        # Here and not in the thread: while a worker is started the environment is the worker's, without a key.
        self._key = os.environ.get("WANDB_API_KEY")
        os.environ["WANDB_MODE"] = self.mode  # what W&B does not know there is an error to it
        # Its setting of this name comes too late; git would run what the working folder's configuration names.
        os.environ["WANDB_DISABLE_GIT"] = "true"
        # On a full disk each line of its own logs would print a traceback, thousands of them, until the process ends.
        self._raised, logging.raiseExceptions = logging.raiseExceptions, False
        self.start()

    def close(self) -> list[str]:
        """Finish, and say how runs that were written offline are sent."""
        self.close_seconds = CLOSE_SECONDS.get(self.mode, 0)
        notes = super().close()
        if self.mode != "disabled":
            logging.raiseExceptions = self._raised
        if self.mode == "offline" and self._wrote:
            notes.append(OFFLINE_ADVICE.format(path=f"{shlex.quote(str(self.results.path))}/wandb/offline-run-*"))
        return notes

    def prepare(self) -> None:
        """Go offline where the server cannot be reached."""
        if self.mode == "online" and (reason := unreachable()) is not None:
            self.notes.append(f"W&B cannot be reached ({reason}): runs are written offline")
            self.mode = "offline"

    def failed(self, error: Exception) -> str:
        """Go offline, where it was online, and return the note."""
        text = super().failed(error)
        if self.mode == "online":
            self.mode = "offline"
            text += "; further runs are written offline"
        return text

    def begin(self, trial: Trial) -> Any:
        """Return the trial's run; W&B goes on with one of the same id, also where files of both are sent later."""
        import wandb

        run = wandb.init(
            id=self.run_id(trial),
            resume="allow",
            project=self.spec.track.project or self.spec.study,
            entity=self.spec.track.entity,
            group=f"{self.spec.study}/{trial.variant}",
            job_type=trial.variant,
            name=trial.name,
            tags=[self.spec.study, trial.variant],
            config=settings(trial),
            dir=str(self.results.path),
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
        return run

    def log(self, run: Any, epoch: int, values: dict[str, float]) -> None:
        """Log an epoch; W&B leaves out one that a resumed run has already."""
        run.log(values, step=epoch)

    def end(self, run: Any, trial: Trial, record: Record) -> None:
        """Log the outcome and the panel of predictions."""
        run.summary.update({"status": record.status, **outcome(record)})
        if record.reason:
            run.summary["reason"] = record.reason
        with self.panel(trial, record) as panel:
            if panel is not None:
                import wandb

                run.log({"panel": wandb.Image(str(panel), caption="image, truth, prediction, error")})
            run.finish(exit_code=0 if record.status != "failed" else 1)

    def interrupt(self, run: Any) -> None:
        """Say that the trial has not ended."""
        run.summary["status"] = "interrupted"
        run.finish(exit_code=1)
