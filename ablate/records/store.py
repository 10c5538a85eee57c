"""A results folder: where everything of a study lies, and how records are read and published. Free of torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ablate.errors import ResultsError
from ablate.records.files import publish_once, read_whole, write_atomic
from ablate.records.record import SCHEMA, Record


class _File:
    """A file of a folder as an attribute; the path is made when it is asked for (a study has 10,000 folders)."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: TrialFolder, owner: type) -> Path:
        return folder.path / self._name


class TrialFolder:
    """The files of one trial."""

    record = _File("record.json")
    epochs = _File("epochs.jsonl")
    steps = _File("steps.f32")
    images = _File("images.npz")
    predictions = _File("predictions.zip")
    gates = _File("gates.npz")
    best = _File("best.pt")
    last = _File("last.pt")
    lock = _File(".lock")
    spec = _File("trial.json")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    def checkpoints(self) -> list[Path]:
        """Checkpoints, the newest first (two generations are kept)."""
        return [path for path in (self.path / "checkpoint.pt", self.path / "checkpoint.previous.pt") if path.exists()]


class Results:
    """`results/<study>/`: the study as resolved, the run's decisions, the trials, the test split, the report."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.study = self.path / "study.yaml"
        self.run = self.path / "run.json"
        self.profile = self.path / "profile.json"
        self.trials = self.path / "trials"
        self.test = self.path / "test"
        self.tables = self.path / "tables"
        self.figures = self.path / "figures"
        self.page = self.path / "report.html"
        self.journal = self.path / "optuna.log"
        self.lock = self.path / ".lock"

    def trial(self, name: str) -> TrialFolder:
        """The folder of the trial called `name`."""
        return TrialFolder(self.trials / name)

    def folders(self) -> Iterator[TrialFolder]:
        """All trial folders, by name."""
        if self.trials.is_dir():
            for path in sorted(self.trials.iterdir()):
                if path.is_dir() and not path.name.startswith("."):
                    yield TrialFolder(path)

    def records(self) -> tuple[list[Record], dict[Path, str]]:
        """Every readable record, and the unreadable ones with the reason. Nothing is changed on disk."""
        records, bad = [], {}
        for folder in self.folders():
            try:
                record = read_record(folder.record)
            except ResultsError as error:
                bad[folder.record] = str(error)
                continue
            if record is not None:
                records.append(record)
        return records, bad

    def read_run(self) -> dict[str, Any]:
        """What `run.json` says, or an empty dict before the first run."""
        return read_json(self.run) or {}


def read_json(path: Path) -> Any:
    """The JSON document at `path`, or None where there is none; `ResultsError` where it cannot be parsed."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"not valid JSON ({error})", file=str(path), cure="delete it and run again") from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines at `path`; empty where there is none. A torn last line, of a killed writer, is left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number + 1 < len(lines):
                raise ResultsError("a line is not valid JSON", file=str(path), line=number + 1) from None
    return rows


def to_json(document: Any) -> bytes:
    """Canonical JSON: sorted keys, NaN and infinities refused, a newline at the end.

    Every key of the document has a line of its own, and so has every item of a list of objects in it. Indenting the
    rest would take the slow one of Python's two encoders.
    """
    if not isinstance(document, dict):
        return (_encode(document) + "\n").encode()
    lines = []
    for key in sorted(document):
        value = document[key]
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            text = "[\n  " + ",\n  ".join(_encode(item) for item in value) + "\n ]"
        else:
            text = _encode(value)
        lines.append(f" {_encode(key)}: {text}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _encode(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)


def finite(value: float | None) -> float | None:
    """JSON knows no NaN: what is not finite is stored as null (and its cause beside it)."""
    return None if value is None or not math.isfinite(value) else float(value)


def read_record(path: Path) -> Record | None:
    """The record at `path`, None where there is none.

    Raises `ResultsError` for what is no record or comes from a newer version of the schema.
    """
    try:
        # One pass from bytes to record, in two thirds of the time. What is wrong is found out, and said, below.
        record = Record.model_validate_json(read_whole(path))
    except (OSError, ValidationError):
        pass
    else:
        if record.schema_version <= SCHEMA:
            return record
    document = read_json(path)
    if document is None:
        return None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        raise ResultsError(
            f"written by a newer version (schema {version}, this one knows {SCHEMA})",
            file=str(path),
            cure="update ablate",
        )
    try:
        return Record.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ResultsError(f"not a record: {place}: {first['msg']}", file=str(path)) from None


def publish_record(folder: TrialFolder, record: Record) -> bool:
    """Publish a finished trial's record, once; a failed one is overwritten by later attempts."""
    data = to_json(record.model_dump(mode="json"))
    if record.status == "failed":
        write_atomic(folder.record, data)
        return True
    existing = read_record(folder.record) if folder.record.exists() else None
    if existing is not None and existing.status == "failed":
        write_atomic(folder.record, data)
        return True
    return publish_once(folder.record, data)


def quarantine(path: Path, reason: str) -> Path:
    """Move a file that cannot be trusted aside, with the reason beside it, so that nothing is lost."""
    target = path.with_name(f"{path.name}.bad")
    count = 1
    while target.exists():
        count += 1
        target = path.with_name(f"{path.name}.bad{count}")
    path.rename(target)
    target.with_name(target.name + ".why").write_text(reason + "\n", encoding="utf-8")
    return target
