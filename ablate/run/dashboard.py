"""optuna-dashboard on a study: the server started on loopback, the mirror brought up to date, pictures drawn on demand.

What takes seconds to import is imported when the address stands on the terminal.
"""

from __future__ import annotations

import importlib.util
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, BinaryIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from ablate.errors import AblateError, install_cure
from ablate.records.files import lock, make_folder, refuse_links, write_atomic
from ablate.records.record import Record
from ablate.records.store import Results
from ablate.study.trial import Trial

LOOPBACK = ("127.0.0.1", "localhost", "::1")
Painter = Callable[[Results, str, Path], Path | None]
# What stands in the place of a picture that nobody has looked at yet, before its kind and the trial.
PROMISE = b"to be drawn: "


def serve(path: Path, *, host: str, port: int, expose: bool, curves: Callable[[], Painter]) -> None:
    """Serve until interrupted. Refuses an address beyond loopback unless told: the dashboard can delete trials.

    A journal that a running study writes is left alone; its trials and curves are live in the dashboard all the
    same. `curves` gives what draws a trial's curves into a file.
    """
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise AblateError("optuna-dashboard is not installed", cure=install_cure("dashboard"))
    if host not in LOOPBACK and not expose:
        raise AblateError(
            f"--host {host}: the dashboard has no login and can delete trials", cure="add --expose if that is meant"
        )
    results = Results(path)
    refuse_links(path)
    switch = _Switch(host)
    try:
        server = make_server(host, port, switch, _server_class(host), _Quiet)
    except OSError as error:
        raise AblateError(f"--port {port}: {error.strerror}", cure="choose another with --port") from None
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        name = results.read_run().get("study", path.name)
        print(f"dashboard of {name} on http://{host}:{port}/ (Ctrl-C ends it)", flush=True)
        switch.application = _dashboard(results, curves)
        serving.join()


def _dashboard(results: Results, curves: Callable[[], Painter]) -> Any:
    """Return the dashboard's application, its mirror up to date where no run holds it."""
    from optuna_dashboard import wsgi

    from ablate.study.reader import read_study

    artifacts = results.path / "artifacts"
    make_folder(artifacts)
    with lock(results.lock, "ablate dashboard") as held:
        if held:
            bring_up_to_date(results, artifacts)
    study = read_study(results.study, check_components=False)
    return wsgi(study.spec.run.storage or str(results.journal), _Pictures(results, artifacts, curves))


class _Pictures:
    """Optuna's store of artifacts in a folder, in which a picture is drawn when it is first looked at."""

    def __init__(self, results: Results, folder: Path, curves: Callable[[], Painter]) -> None:
        from optuna.artifacts import FileSystemArtifactStore

        self._results, self._folder, self._curves = results, folder, curves
        self._files, self._drawing = FileSystemArtifactStore(folder), threading.Lock()
        self.write, self.remove = self._files.write, self._files.remove

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Return an artifact's bytes; they stay a promise where there is nothing to draw."""
        with self._drawing:
            with self._files.open_reader(artifact_id) as file:
                content = file.read()
            if content.startswith(PROMISE):
                self._draw(artifact_id, *content.removeprefix(PROMISE).decode().split(" ", 1))
        return self._files.open_reader(artifact_id)

    def _draw(self, artifact_id: str, kind: str, name: str) -> None:
        from ablate.records.paint import write_panel

        paint = write_panel if kind == "panel" else self._curves()
        planned = {entry["name"] for entry in self._results.read_run()["plan"]}  # and no path out of the folder
        with tempfile.TemporaryDirectory() as scratch:
            path = paint(self._results, name, Path(scratch) / "picture.png") if name in planned else None
            if path is not None:
                write_atomic(self._folder / artifact_id, path.read_bytes(), lasting=False)


class _Switch:
    """The application behind the address: a page that asks again until there is one, and 403 for other names.

    A web page can give its own name the address 127.0.0.1: the browser would then let it read and delete everything.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.application: Any = None

    def __call__(self, environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        asked = re.sub(r":\d*$", "", environment.get("HTTP_HOST", "")).strip("[]").lower()
        if asked not in {self.host, *LOOPBACK} and self.host in LOOPBACK:
            start("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"This server answers to the name localhost and its own address only.\n"]
        if self.application is not None:
            found: Iterable[bytes] = self.application(environment, start)
            return found
        start("503 Service Unavailable", [("Content-Type", "text/html"), ("Retry-After", "1"), ("Refresh", "1")])
        return [b"<!doctype html><title>ablate</title><p>The dashboard is being prepared; this page follows.</p>\n"]


def _server_class(host: str) -> type[WSGIServer]:
    """Return a server that answers every request in a thread of its own: drawing a picture holds up no other."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return type("Server", (ThreadingMixIn, WSGIServer), {"daemon_threads": True, "address_family": family})


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of the requests that are answered."""


def bring_up_to_date(results: Results, artifacts: Path) -> None:
    """Rebuild the Optuna mirror where it differs from the records or is promised no pictures of them."""
    from ablate.run.optuna_mirror import mirror_of
    from ablate.study.reader import read_study

    study = read_study(results.study, check_components=False)
    entries = {entry["key"]: entry for entry in results.read_run()["plan"]}
    known = [
        (_planned(record, entries[record.key]), record) for record in results.records()[0] if record.key in entries
    ]
    mirror = mirror_of(study, results, [*study.trials(), *(trial for trial, _ in known)])

    def curve_of(trial: Trial) -> Path:
        return results.trial(entries[trial.key]["name"]).epochs

    mirror.synchronise(known, curve_of)
    if not mirror.lack_pictures():
        return
    with tempfile.TemporaryDirectory() as scratch:

        def pictures(trial: Trial) -> list[Path]:
            name, found = entries[trial.key]["name"], []
            folder = results.trial(name)
            for kind, source in (("panel", folder.predictions), ("curves", folder.epochs)):
                if source.exists():
                    found.append(Path(scratch) / f"{kind}.png")
                    found[-1].write_bytes(PROMISE + f"{kind} {name}".encode())
            return found

        mirror.replay(known, curve_of, pictures, artifacts)


def _planned(record: Record, entry: Mapping[str, Any]) -> Trial:
    """Return the trial of a record as the plan has it: a variant may have got another name since."""
    same = {name: getattr(record, name) for name in ("study", "seed", "role", "model", "data", "train", "key")}
    return Trial(variant=entry["variant"], settings=entry["settings"], **same)
