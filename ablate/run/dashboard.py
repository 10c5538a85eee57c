"""optuna-dashboard on a study: the ledger brought up to date, artifacts attached, the server started on loopback."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ablate.errors import AblateError
from ablate.records.files import lock, make_folder, refuse_links
from ablate.records.record import Record
from ablate.records.store import Results, read_lines
from ablate.run.driver import searched_axes
from ablate.run.ledger import Ledger
from ablate.run.panel import write_panel
from ablate.run.setup import lock_note
from ablate.study.reader import read_study
from ablate.study.trial import Trial

LOOPBACK = ("127.0.0.1", "localhost", "::1")
Painter = Callable[[Results, str, Path], Path | None]


def serve(path: Path, *, host: str, port: int, expose: bool, curves: Painter | None = None) -> NoReturn:
    """Serve until interrupted. Refuses an address beyond loopback unless told: the dashboard can delete trials.

    A journal that a running study writes is left alone; its trials and curves are live in the dashboard all the
    same. `curves` draws a trial's curves into a file.
    """
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise AblateError("optuna-dashboard is not installed", cure="pip install 'ablate-bench[dashboard]'")
    if host not in LOOPBACK and not expose:
        raise AblateError(
            f"--host {host}: the dashboard has no login and can delete trials", cure="add --expose if that is meant"
        )
    results = Results(path)
    refuse_links(path)
    artifacts = path / "artifacts"
    make_folder(artifacts)
    with lock(results.lock, lock_note()) as held:
        if held:
            bring_up_to_date(results, artifacts, curves)
    study = read_study(results.study, check_components=False)
    storage = study.spec.run.storage or str(results.journal)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            raise AblateError(f"--port {port}: {error.strerror}", cure="choose another with --port") from None
    print(f"dashboard of {study.name} on http://{host}:{port}/ (Ctrl-C ends it)", flush=True)
    program = Path(sys.executable).with_name("optuna-dashboard")  # of this environment, whatever PATH says
    command = [str(program), storage, "--artifact-dir", str(artifacts), "--host", host, "--port", str(port), "-q"]
    os.execv(program, command)  # this process becomes the server: whoever ends it ends the server


def bring_up_to_date(results: Results, artifacts: Path, curves: Painter | None) -> None:
    """Rebuild the ledger where it differs from the records or lacks pictures of them."""
    study = read_study(results.study, check_components=False)
    names = {entry["key"]: entry["name"] for entry in results.read_run()["plan"]}
    records = [record for record in results.records()[0] if record.key in names]
    trials = {record.key: _trial_of(record) for record in records}
    plan = [*study.trials(), *trials.values()]
    ledger = Ledger(results.journal, study.name, plan, study.spec.run.storage, searched_axes(study))
    epochs = {record.key: read_lines(results.trial(names[record.key]).epochs) for record in records}
    ledger.synchronise(records, epochs)
    if not ledger.lack_pictures():
        return
    painters: dict[str, Painter] = {"panel": write_panel, **({"curves": curves} if curves else {})}
    with tempfile.TemporaryDirectory() as scratch:

        def pictures(record: Record) -> list[Path]:
            painted = [
                paint(results, names[record.key], Path(scratch) / f"{label}.png") for label, paint in painters.items()
            ]
            return [path for path in painted if path is not None]

        ledger.replay(trials, records, epochs, pictures, artifacts)


def _trial_of(record: Record) -> Trial:
    return Trial(
        record.study,
        record.variant,
        record.settings,
        record.seed,
        record.role,
        record.model,
        record.data,
        record.train,
        record.key,
    )
