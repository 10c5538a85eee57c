"""A results folder: where everything of a study lies, and how records are read and published. Free of torch."""

from __future__ import annotations

import json
import lzma
import math
import tarfile
from collections.abc import Iterator, Mapping
from functools import cache
from io import FileIO
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from pydantic import ValidationError

from ablate.errors import ResultsError, note_unpacked, visible
from ablate.records.files import (
    MOST_WEIGHTS,
    digest_of,
    lock,
    make_folder,
    publish_once,
    read_file,
    refuse_link,
    sync,
    write_atomic,
)
from ablate.records.record import DOCUMENTS, FINISHED, SCHEMA, Record

# What a record's digests cover: the files whose bytes follow from the trial. Those of the weights are torch's, and
# their digest stands in the record's provenance.
NUMBERS = ("epochs.jsonl", "steps.f32", "images.npz", "predictions.zip", "gates.npz")
WEIGHTS = ("best.pt",)
# All that belongs to a finished trial, and is taken along where another folder reuses it.
TRIAL_FILES = ("record.json", *NUMBERS, *WEIGHTS, "best.json", "last.pt")
# The trials of a published folder, in place of the folder `trials`, and the most bytes that they may unpack to.
PACKED, MOST_UNPACKED = "trials.tar.xz", 2**30
# The most members of such an archive, bytes that are read of it at once, and bytes of a JSON document.
MOST_MEMBERS, MOST_AT_ONCE, MOST_JSON = 100_000, 2**20, 2**28
# Seconds that a second attempt at a trial waits for the first to publish.
_PUBLISH_SECONDS = 60.0


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
    published = _File("published.json")
    predictions = _File("predictions.zip")
    gates = _File("gates.npz")
    best = _File("best.pt")
    card = _File("best.json")
    last = _File("last.pt")
    lock = _File(".lock")
    claim = _File(".claim")
    spec = _File("trial.json")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, the newest first (two generations are kept)."""
        return [path for path in (self.path / "checkpoint.pt", self.path / "checkpoint.previous.pt") if path.exists()]

    def drop_checkpoints(self) -> None:
        """Delete the checkpoints, once the record stands."""
        for path in self.checkpoints():
            path.unlink(missing_ok=True)

    def make(self) -> None:
        """Make the folder where it is not there; raises `ResultsError` where it, or the one around it, is a link."""
        refuse_link(self.path.parent)
        make_folder(self.path)

    def digests(self, names: tuple[str, ...] = NUMBERS) -> dict[str, str]:
        """Return the SHA-256 of those of the files that are there, by name."""
        return {name: digest_of(path) for name in names if (path := self.path / name).is_file()}

    def note(self) -> dict[str, Any]:
        """Return what `published.json` says of files that were made smaller to be published, else an empty dict."""
        return read_json(self.published) or {}

    def copy_from(self, other: TrialFolder) -> None:
        """Take over a finished trial of another results folder: the files known by name, its record last."""
        self.make()
        for name in (self.published.name, *TRIAL_FILES[1:], TRIAL_FILES[0]):
            if (source := other.path / name).exists():
                refuse_link(source)
                write_atomic(self.path / name, read_file(source, MOST_WEIGHTS))
        self.drop_checkpoints()


class Results:
    """`results/<study>/`: the study as resolved, the run's decisions, the trials, the test split, the report."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.resolved = self.path / "study.resolved.yaml"
        self.run = self.path / "run.json"
        self.profile = self.path / "profile.json"
        self.test = self.path / "test"
        self.tables = self.path / "tables"
        self.figures = self.path / "figures"
        self.page = self.path / "report.html"
        self.journal = self.path / "optuna.log"
        self.lock = self.path / ".lock"

    @property
    def study(self) -> Path:
        """The study as resolved; folders of older versions have it as `study.yaml`."""
        older = self.path / "study.yaml"
        return older if not self.resolved.exists() and older.exists() else self.resolved

    @property
    def trials(self) -> Path:
        """The folder of the trials; the packed ones of a published folder are unpacked out of sight, to be read."""
        packed = self.path / PACKED
        within = _unpacked(packed, packed.stat().st_mtime_ns).name if self.is_packed() else self.path
        return Path(within) / "trials"

    def is_packed(self) -> bool:
        """Return whether the trials lie here as one archive, as in a published folder.

        Raises `ResultsError` where they lie beside it unpacked as well: nothing says which of the two is whole.
        """
        packed, unpacked = self.path / PACKED, self.path / "trials"
        if packed.is_file() and unpacked.exists():
            cure = f"delete {PACKED} if all of it was unpacked, else the folder trials"
            raise ResultsError("trials lie here packed and unpacked", file=str(packed), cure=cure)
        return packed.is_file()

    def refuse_packed(self) -> None:
        """Raise `ResultsError` where the trials are packed: they can be read, but nothing can be changed in them."""
        if self.is_packed():
            cure = f"unpack it first, in that folder: tar xf {PACKED} && rm {PACKED}"
            raise ResultsError("the trials of this folder are packed", file=str(self.path / PACKED), cure=cure)

    def is_marked(self) -> bool:
        """Return whether this is a results folder: `run.json` names a study, or a resolved study lies here."""
        return self.resolved.exists() or bool(self.read_run().get("study"))

    def trial(self, name: str) -> TrialFolder:
        """Return the folder of the trial called `name`."""
        return TrialFolder(self.trials / name)

    def folders(self) -> Iterator[TrialFolder]:
        """Yield all trial folders, by name."""
        if self.trials.is_dir():
            for path in sorted(self.trials.iterdir()):
                if path.is_dir() and not path.name.startswith("."):
                    yield TrialFolder(path)

    def records(self) -> tuple[list[Record], dict[Path, str]]:
        """Return every readable record, and the unreadable ones with the reason. Nothing is changed on disk."""
        records, bad = [], {}
        for folder in self.folders():
            try:
                record = read_record(folder.record)
                if record is not None and not folder.name.endswith(f"-{record.key[:8]}"):
                    raise ResultsError("the record of another trial", file=str(folder.record))
            except ResultsError as error:
                bad[folder.record] = str(error)
                continue
            if record is not None:
                records.append(record)
        return records, bad

    def holder(self) -> str:
        """Return what the last holder of the folder's lock wrote into it: pid and host; "" where there was none."""
        try:
            return visible(read_file(self.lock, MOST_JSON).decode(errors="replace")).strip()
        except FileNotFoundError:
            return ""

    def read_run(self) -> dict[str, Any]:
        """Return what `run.json` says, or an empty dict before the first run."""
        return read_json(self.run) or {}


class _Pieces(FileIO):
    """A file of which nobody takes more than `most` bytes in one place: tarfile would parse a header of any size."""

    most, _taken = float(MOST_AT_ONCE), 0

    def seek(self, position: int, whence: int = 0, /) -> int:
        """Go to another place, such as the next header."""
        self._taken = 0
        return super().seek(position, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next `size` bytes; raises `tarfile.ReadError` where they are too many."""
        self._taken += size if size is not None and size >= 0 else MOST_AT_ONCE + 1
        if self._taken > self.most:
            raise tarfile.ReadError("a header of it is too large")
        return super().read(size)


@cache
def _unpacked(packed: Path, _changed: int) -> TemporaryDirectory[str]:
    """Return a folder with the content of the archive, which is gone when this process ends."""
    folder = TemporaryDirectory(prefix="ablate-", ignore_cleanup_errors=True)
    try:
        with lzma.open(packed) as content, TemporaryFile() as plain:
            # Unpacked up to a limit first: the headers of a tar may be as large as they like.
            while block := content.read(2**20):
                plain.write(block)
                if plain.tell() > MOST_UNPACKED:
                    raise ResultsError("holds more than trials can be", file=str(packed))
            plain.seek(0)
            pieces = _Pieces(plain.fileno(), closefd=False)
            with tarfile.open(fileobj=pieces, mode="r:") as archive:
                members = list(islice(archive, MOST_MEMBERS + 1))
                if not members or not all(member.isdir() or member.isfile() for member in members):
                    raise ResultsError("holds no trials, or links among them", file=str(packed))
                # A sparse file takes no room in the archive, and may be of any size outside of it.
                if len(members) > MOST_MEMBERS or any(member.issparse() for member in members):
                    raise ResultsError("holds more than trials can be", file=str(packed))
                pieces.most = math.inf  # the content, of which the archive said how much it is
                # The filter refuses names that lead out of the folder.
                archive.extractall(folder.name, members, filter="data")
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError, MemoryError, ValueError) as error:
        raise ResultsError(f"cannot be unpacked ({error})", file=str(packed)) from None
    note_unpacked(folder.name, packed)
    return folder


def read_json(path: Path) -> Any:
    """Return the JSON document at `path`, or None where there is none.

    A file of a results folder whose name is known (`run.json`, `index.json`, ...) is held against its type. Raises
    `ResultsError` for what cannot be read or parsed, or is of another type.
    """
    try:
        document = json.loads(read_file(path, MOST_JSON))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ResultsError(f"cannot be read ({error.strerror})", file=str(path)) from None
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"not valid JSON ({error})", file=str(path), cure="delete it and run again") from None
    model = DOCUMENTS.get(path.name)
    if model is not None:
        _refuse_newer(document, path)
        try:
            model.model_validate(document)
        except ValidationError as error:
            raise ResultsError(f"damaged: {_first(error)}", file=str(path), cure="delete it and run again") from None
    return document


def _refuse_newer(document: Any, path: Path) -> None:
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        message = f"written by a newer version (schema {version}, this one knows {SCHEMA})"
        raise ResultsError(message, file=str(path), cure="update ablate")


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return ": ".join([*([".".join(map(str, first["loc"]))] if first["loc"] else []), first["msg"]])


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON lines at `path`; empty where there is none. A torn last line, of a killed writer, is left out."""
    try:
        lines = read_file(path, MOST_JSON).split(b"\n")
    except FileNotFoundError:
        return []
    lines = lines if lines[-1] else lines[:-1]
    rows = []
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
            if not isinstance(rows[-1], dict):
                raise ResultsError("a line is not a JSON object", file=str(path), line=number + 1)
        except (ValueError, RecursionError):
            if number + 1 < len(lines):
                raise ResultsError("a line is not valid JSON", file=str(path), line=number + 1) from None
    return rows


def to_json(document: Mapping[str, Any]) -> bytes:
    """Return a document as canonical JSON: sorted keys, NaN and infinities refused, a newline at the end.

    Every key of the document has a line of its own, and so has every item of a list of objects in it. Indenting the
    rest would take the slow one of Python's two encoders.
    """
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
    """Return a number as JSON can hold it: null for what is not finite (its cause stands beside it)."""
    return None if value is None or not math.isfinite(value) else float(value)


def read_record(path: Path) -> Record | None:
    """Return the record at `path`, None where there is none.

    Raises `ResultsError` for what is no record or comes from a newer version of the schema.
    """
    try:
        data = read_file(path, MOST_JSON)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResultsError(f"cannot be read ({error.strerror})", file=str(path)) from None
    try:
        record = Record.model_validate_json(data)
    except ValidationError as error:
        _refuse_newer(read_json(path), path)
        raise ResultsError(f"not a record: {_first(error)}", file=str(path)) from None
    _refuse_newer({"schema_version": record.schema_version}, path)
    return record


def publish_record(folder: TrialFolder, record: Record) -> bool:
    """Publish the record of a trial once it and all it rests on is durable; True where this call published it.

    The curves are synced and every file's digest is put into the record before it appears. A finished record is never
    replaced, a failed one by the next attempt's.
    """
    finished = record.status in FINISHED
    if finished:
        for name in (*NUMBERS, *WEIGHTS):
            sync(folder.path / name)
        weights = folder.digests(WEIGHTS)
        provenance = record.provenance | ({"weights": weights} if weights else {})
        record = record.model_copy(update={"files": folder.digests(), "provenance": provenance})
    data = to_json(record.model_dump(mode="json"))
    if publish_once(folder.record, data):
        return True
    with lock(folder.path / ".publish", timeout=_PUBLISH_SECONDS) as held:
        if not held:
            raise ResultsError("another process is publishing the record", file=str(folder.record), cure="run again")
        existing = read_record(folder.record)
        if existing is not None and existing.status in FINISHED:
            return False
        write_atomic(folder.record, data)
    return True


def quarantine(path: Path, reason: str) -> Path:
    """Move a file that cannot be trusted aside, with the reason beside it, so that nothing is lost."""
    target = path.with_name(f"{path.name}.bad")
    count = 1
    while target.exists():
        count += 1
        target = path.with_name(f"{path.name}.bad{count}")
    path.rename(target)
    write_atomic(target.with_name(target.name + ".why"), (reason + "\n").encode("utf-8", "backslashreplace"))
    return target
