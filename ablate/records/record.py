"""The record of a trial: the one truth about what it was and how it ended. Free of torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1
Resolution = Literal["trained", "native"]
Status = Literal["complete", "diverged", "pruned", "failed"]

# A trial with one of these statuses is a result of the study and is never run again on its own.
FINISHED: frozenset[str] = frozenset({"complete", "diverged", "pruned"})


class Record(BaseModel):
    """What `record.json` holds.

    Everything but `timing` and `provenance` is a function of the trial alone: bit-equal on a CPU however
    often the trial was interrupted. Fractions are fractions; losses are in nats; -1 counts no epoch.
    A metric that could not be had is None and named with its cause in `missing`.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA
    key: str = Field(description="Hash of what the trial computes (study.keys.trial_keys).")
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
    reason: str | None = Field(None, description="Why it diverged or failed, in one line.")
    metrics: dict[str, float | None] = Field(default_factory=dict)
    missing: dict[str, str] = Field(default_factory=dict)
    layers: dict[str, dict[str, list[float | None]]] = Field(
        default_factory=dict, description="Probes: measure -> layer -> one value a probed epoch."
    )
    timing: dict[str, Any] = Field(default_factory=dict, description="Seconds and rates seen while lanes were shared.")
    provenance: dict[str, Any] = Field(default_factory=dict)
