"""The JSON files of a results folder as types: the record of a trial, the run, the test split, the profile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ablate.errors import redacted, visible
from ablate.study.trial import Trial, without_folder, without_location

SCHEMA = 1
# Significant bits of a float32 that was rounded to be published, and those that it has.
LEAST_BITS, EXACT_BITS = 8, 24
# The measures that rounding the steps moves no further than `ablate.measure.stability.rounding_bounds`.
MeasureOfSteps = Literal["rise", "spike_score", "roughness", "excess_variation", "tail_risk"]
Resolution = Literal["trained", "native"]
Status = Literal["complete", "diverged", "pruned", "failed"]

# A trial with one of these statuses is a result of the study and is never run again on its own.
FINISHED: frozenset[str] = frozenset({"complete", "diverged", "pruned"})

# Text of whoever wrote the file: shown, so its control characters are escaped when it is read.
Shown = Annotated[str, AfterValidator(visible)]


class Record(BaseModel):
    """`record.json`: a trial, what it was and how it ended.

    Everything but `timing` and `provenance` is a function of the trial alone: bit-equal on a CPU however
    often the trial was interrupted. Fractions are fractions; losses are in nats; -1 counts no epoch.
    A metric that could not be had is None and named with its cause in `missing`.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA
    key: str = Field(description="Hash of what the trial computes (study.trial.trial_key).")
    study: str
    variant: str
    settings: dict[str, Any] = Field(description="The grid's settings, e.g. {'lr': 0.001}.")
    seed: int
    role: Literal["main", "confirm"] = "main"
    model: dict[str, Any]
    data: dict[str, Any]
    train: dict[str, Any]
    status: Status
    resolution: Resolution = Field(
        "trained", description="Where the test split was scored: at the size trained at, or at the masks' own."
    )
    reason: Shown | None = Field(None, description="Why it diverged or failed, in one line.")
    metrics: dict[str, float | None] = Field(default_factory=dict)
    missing: dict[str, Shown] = Field(default_factory=dict)
    layers: dict[str, dict[str, list[float | None]]] = Field(
        default_factory=dict, description="Probes: measure -> layer -> one value a probed epoch."
    )
    files: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the files beside the record; empty in records of older versions."
    )
    timing: dict[str, Any] = Field(
        default_factory=dict,
        description="Seconds, of all goes at a trial that was resumed, and rates while workers shared a device.",
    )
    provenance: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(
        cls,
        trial: Trial,
        status: str,
        *,
        reason: str | None = None,
        metrics: dict[str, float | None] | None = None,
        missing: dict[str, str] | None = None,
        layers: dict[str, dict[str, list[float | None]]] | None = None,
        timing: dict[str, Any] | None = None,
        provenance: dict[str, Any] | None = None,
        resolution: str = "trained",
    ) -> Record:
        """Return the record of a trial that ended with `status`; the one place where a trial becomes a record."""
        same = ("key", "study", "variant", "settings", "seed", "role", "train")
        values: dict[str, Any] = {name: getattr(trial, name) for name in same}
        values |= {"model": without_folder(trial.model), "data": without_location(trial.data)}
        values |= {"status": status, "resolution": resolution}
        values |= {"metrics": metrics or {}, "missing": missing or {}, "layers": layers or {}}
        values |= {"timing": timing or {}, "provenance": provenance or {}}
        values["reason"] = None if reason is None else visible(redacted(reason))
        return cls(**values)


def computed_by(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return what numbers depend on besides their trial, where known: PyTorch, processor, engine, precision."""
    parts = {name: provenance.get(name) for name in ("versions", "machine", "arithmetic")}
    versions, machine, how = (part if isinstance(part, dict) else {} for part in parts.values())
    gpus = machine.get("gpus") if str(provenance.get("device")).startswith("cuda") else None
    processor = gpus[0] if isinstance(gpus, list) and gpus else machine.get("cpu")
    found = {"PyTorch": versions.get("torch"), "processor": processor}
    found |= {name: how.get(name) for name in ("engine", "precision")}
    return {name: visible(str(value)) for name, value in found.items() if value is not None}


def computed_differently(found: Iterable[Mapping[str, str]]) -> list[str]:
    """Return in what `computed_by` of several records differs: "PyTorch (2.12.0, 2.13.0)"."""
    values: dict[str, set[str]] = {}
    for one in found:
        for name, value in one.items():
            values.setdefault(name, set()).add(value)
    return [f"{name} ({', '.join(sorted(several))})" for name, several in values.items() if len(several) > 1]


def _inside(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise ValueError("expected the name of a folder, got a path")
    return _printable(name)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected printable text, got a control character")
    return text


def _with_rate(settings: dict[str, Any]) -> dict[str, Any]:
    rate = settings.get("lr")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float)):
        raise ValueError("expected a number as lr, got something else")
    return settings


Name = Annotated[str, AfterValidator(_printable)]


class _Document(BaseModel):
    """Base of the files whose keys may grow: what is known has its type, what is not is left alone."""

    model_config = ConfigDict(extra="allow", strict=True)


class PlanEntry(_Document):
    """A planned trial as `run.json` lists it."""

    name: Annotated[str, AfterValidator(_inside)]
    key: Name
    variant: Name
    settings: Annotated[dict[str, Any], AfterValidator(_with_rate)]
    seed: int
    role: Literal["main", "confirm"] = "main"


class DataEntry(_Document):
    """The data as `run.json` lists them."""

    name: str = ""
    fingerprint: str = ""
    classes: list[str] = []
    size: list[int] = []
    resolution: Resolution = "trained"
    splits: dict[str, int] = {}
    absent: dict[str, list[str]] = {}


class PluginEntry(_Document):
    """A plugin file as `run.json` lists it."""

    file: str
    sha256: str


class VariantEntry(_Document):
    """A variant as `run.json` describes it; `differs` has the baseline's value and its own by field."""

    model: dict[str, Any] = {}
    differs: dict[str, Annotated[list[Any], Field(min_length=2, max_length=2)]] = {}
    parameters: float | None = None
    forward_flops: float | None = None
    modules: dict[str, list[str]] = {}
    control: bool = False


class Decision(_Document):
    """A value of the execution config, and why it was taken."""

    value: Any = None
    why: str = ""


class RunDocument(_Document):
    """`run.json`: what a folder of results was made with. It is the marker of such a folder.

    `id` is random, made with the folder, and names it to an Optuna storage that several studies share.
    """

    schema_version: int = SCHEMA
    study: Name = ""
    id: str = ""
    command: str = ""
    versions: dict[str, str] = {}
    device: dict[str, Any] = {}
    git: dict[str, Any] = {}
    data: DataEntry = DataEntry()
    plugins: list[PluginEntry] = []
    decisions: dict[str, Decision] = {}
    variants: dict[str, VariantEntry] = {}
    extended_from: dict[str, int] = {}
    plan: list[PlanEntry] = []
    search: dict[str, Any] = {}


class IndexDocument(_Document):
    """`test/index.json`: the images of the test split and of val, and how they are to be looked at.

    Where `multilabel`, targets and predictions hold sums of 2^class, and `labelled_pixels` counts the test pixels that
    are scored.
    """

    classes: list[str] = []
    palette: list[Annotated[list[int], Field(min_length=3, max_length=3)]] = []
    ignore_index: int = 255
    size: Annotated[list[int], Field(min_length=2, max_length=2)] = [0, 0]
    resolution: Resolution = "trained"
    multilabel: bool = False
    labelled_pixels: int | None = None
    names: list[str] = []
    groups: list[str] | None = None
    val_names: list[str] = []
    val_groups: list[str] | None = None
    fingerprint: str = ""


class ProfileEntry(_Document):
    """A variant in `profile.json`: rates and latencies are lists, one value a round or a prediction."""

    parameters: float | None = None
    forward_flops: float | None = None
    train_images_per_s: list[float] = []
    inference_images_per_s: list[float] = []
    latency_ms: list[float] = []
    peak_memory_bytes: float | None = None


class ProfileDocument(_Document):
    """`profile.json`: each variant measured alone on the device, interleaved with the others."""

    device: str = ""
    machine: str = ""
    rounds: int = 0
    batch_size: int = 0
    size: list[int] = []
    precision: str = ""
    engine: str = ""
    variants: dict[str, ProfileEntry] = {}


class DataDocument(_Document):
    """`data.json`: the digest of every file of the data set."""

    files: dict[str, str] = {}


class PublishedDocument(_Document):
    """`published.json` beside a record: which of its files were made smaller to be published, and the digests of these.

    The numbers of `steps.f32` are rounded to so many significant bits; `measures` are those of them before, where
    rounding changes them. Any other file or measure is refused: it is as the record and the files have it.
    """

    files: dict[Literal["images.npz", "steps.f32"], str]
    significant_bits: Annotated[int, Field(ge=LEAST_BITS, le=EXACT_BITS)]
    measures: dict[MeasureOfSteps, float]


DOCUMENTS: dict[str, type[_Document]] = {
    "published.json": PublishedDocument,
    "run.json": RunDocument,
    "index.json": IndexDocument,
    "profile.json": ProfileDocument,
    "data.json": DataDocument,
}
