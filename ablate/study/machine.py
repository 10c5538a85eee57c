"""The machine side of a study file: where and how trials run and are tracked. None of it is in a trial's key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt


class Spec(BaseModel):
    """Base of every part of a study: keyword-only, immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ClusterSpec(Spec):
    """Room and time of a cluster's job; what a study leaves out may stand in ~/.config/ablate/<executor>.yaml."""

    partition: str | None = Field(None, description="Slurm's partition.")
    account: str | None = Field(None, description="Slurm's account.")
    time: PositiveInt = Field(240, description="Minutes that Slurm gives a job; a longer trial goes on in the next.")
    gpus: NonNegativeFloat = Field(0, description="GPUs of a job; with Ray also a part of one, such as 0.5.")
    cpus: PositiveInt = Field(1, description="CPU cores of a job, and its threads.")
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)?[KMGTkmgt][Bb]?$")] | None = Field(
        None, description="Memory of a job, such as 8GB."
    )
    max_parallel: PositiveInt = Field(64, description="Most jobs of Slurm at a time.")
    trials_per_job: PositiveInt = Field(1, description="Trials that a job runs one after another.")
    address: str | None = Field(None, description="Address of a Ray cluster, or 'auto'; default one on this machine.")
    options: dict[str, Any] = Field(default_factory=dict, description="More of Slurm's options, such as constraint.")


class RunSpec(Spec):
    """The machine side of a run: none of it changes what a trial computes, so none of it is in a trial's key."""

    devices: Annotated[list[str], Field(min_length=1)] | Literal["auto"] = Field(
        "auto", description="'auto', or a list such as [cpu] or [cuda:0]."
    )
    workers: PositiveInt | Literal["auto"] = Field("auto", description="Trials at a time on a device.")
    threads: PositiveInt | Literal["auto"] = Field("auto", description="CPU threads of a worker.")
    engine: Literal["auto", "eager", "fused", "compiled", "graph", "compiled_graph"] = Field(
        "auto",
        description="How a training step is executed: op by op, (on a CPU) with fused kernels between convolutions, "
        "compiled, or (on CUDA) recorded as a graph.",
    )
    deterministic: bool = Field(True, description="Bitwise repeatable kernels on CUDA (a CPU always is).")
    executor: Literal["local", "slurm", "ray"] = Field(
        "local", description="Where trials run: on the devices of this machine, or as jobs of Slurm or Ray."
    )
    cluster: ClusterSpec = Field(
        default_factory=lambda: ClusterSpec(), description="What a job of Slurm or Ray asks for."
    )
    attempts: PositiveInt = Field(2, description="Tries at a trial whose machine failed it, within one run.")
    trial_timeout: PositiveFloat | None = Field(None, description="Seconds after which a trial is stopped as failed.")
    checkpoint_every: NonNegativeFloat = Field(30.0, description="Least seconds between two checkpoints.")
    storage: str | None = Field(None, description="Optuna storage URL; default a journal file beside the records.")
    reuse: list[str] = Field(default_factory=list, description="Results folders whose equal trials are taken over.")
    keep: Literal["best", "last", "none"] = Field(
        "best",
        description="What stays of a finished trial's network: the best weights; also the last state, from which "
        "--extend goes on; or nothing.",
    )


class TrackSpec(Spec):
    """Trackers that follow a run: each trial is one run there, also where it is interrupted and resumed."""

    wandb: Literal["auto", "offline", "online", "disabled"] = Field(
        "auto", description="'auto' follows WANDB_MODE and is offline otherwise."
    )
    tensorboard: bool = Field(False, description="Write TensorBoard's files to results/<study>/tensorboard.")
    mlflow: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="The address of an MLflow server, or a folder for MLflow's database."
    )
    project: str | None = Field(None, description="Project of W&B, experiment of MLflow; default the study's name.")
    entity: str | None = Field(None, description="W&B entity.")


def config_folder() -> Path:
    """Return the folder of the user's own settings and trust."""
    given = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    # A relative one would lie in the folder that one works in, which may be a stranger's.
    return (given if given.is_absolute() else Path("~/.config").expanduser()) / "ablate"
