"""The time and the room that a study will take: real steps of each variant on this machine, and bytes on its disk."""

from __future__ import annotations

import heapq
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ablate.data.augment import Augmenter
from ablate.data.dataset import Dataset, as_bytes
from ablate.records.files import size_of
from ablate.records.images import pack, pack_images
from ablate.run.plan.describe import PlanReport
from ablate.run.wandb import resolve_mode
from ablate.study.study import Study
from ablate.study.trial import Trial
from ablate.train.context import Context
from ablate.train.device import device_names, synchronise
from ablate.train.engine import make_step
from ablate.train.engine.config import COMPILE_GAIN, COMPILE_SECONDS, Decisions, decide
from ablate.train.evaluate import image_counts
from ablate.train.outcome import LARGEST_LAST_STATE
from ablate.wording import size_text

# Most arithmetic of the forward passes that are timed, of all variants together: a plan has to come at once.
STEP_FLOPS = 20e9
# Of steps as short as a millisecond so many show the quickest.
MOST_STEPS = 100
# States of a network that a checkpoint holds: its weights, the best ones, and two moments of an Adam optimizer.
STATES = 4
GENERATIONS = 2
NOT_ENOUGH = "NOT ENOUGH"
# The bytes of results that were measured by `du`. Of a trial: its record; a step and an epoch of its curves, a class
# of an image of its counts; what W&B and Optuna's journal mirror of it. Of the report: by variants, and by trials.
RECORD_BYTES, STEP_BYTES, EPOCH_BYTES, COUNT_BYTES = 15_000, 8, 250, 4
WANDB_BYTES, JOURNAL_BYTES = 80_000, 3_000
REPORT_OF_VARIANT, REPORT_OF_TRIAL = 1_200_000, 60_000
# Predictions of a network are rougher than the targets that their size is estimated from.
ROUGHER = 1.5
LOOKED_AT = 8


@dataclass(frozen=True)
class Estimate:
    """Seconds of a study: `fixed` before and after its trials, `trials` for those that the plan names."""

    fixed: float
    trials: float


@dataclass(frozen=True)
class Pace:
    """Seconds that a variant takes for an image: to train on it, and to score it; the number of images by split."""

    train: float
    score: float
    images: dict[str, int]

    def of(self, trial: Trial) -> float:
        """Return the seconds of a trial, validation and test included."""
        epochs, images = trial.train["epochs"], self.images
        scored = (epochs + 1) * images["val"] + images["test"]
        return epochs * images["train"] * self.train + scored * self.score


def estimate_seconds(
    study: Study, report: PlanReport, *, measure_for: float = 2.0, start_up: float = 0.0
) -> Estimate | None:
    """Return about how many seconds the trials of a plan take on this machine; None where a GPU's memory lacks.

    Each variant trains on and scores a batch of the study's own data again and again, as a worker of a run would, all
    of them for `measure_for` seconds (each 0.3 at most); the quickest counts, by the processor's own clock, so that
    other load does not. Where that is too much arithmetic to come at once, the baseline alone is timed, and the others
    count by their FLOPs.
    `start_up` is what a run takes before its first trial. Checkpoints and probes are not in it.
    """
    device, decisions = device_names(study.spec.run.devices)[0], decisions_of(study, report)
    flops = {item.name: item.forward_flops for item in report.variants}
    if not flops[study.baseline] or not report.train_flops:
        return None
    all_fit = sum(flops.values()) <= STEP_FLOPS
    context = Context(device, replace(decisions, engine="eager") if decisions.compiles else decisions, study.base)
    paces, share = {}, min(0.3, measure_for / len(flops))
    try:
        with torch.random.fork_rng(devices=[]):
            for trial in study.representatives():
                if all_fit or trial.variant == study.baseline:
                    most = max(1, int(STEP_FLOPS / (len(flops) if all_fit else 1) / max(flops[trial.variant], 1)))
                    paces[trial.variant] = _pace(trial, context, most, share)
    except torch.OutOfMemoryError:  # somebody else is on the GPU: the plan comes without
        return None
    for name in flops.keys() - paces.keys():
        base, ratio = paces[study.baseline], flops[name] / flops[study.baseline]
        paces[name] = replace(base, train=ratio * base.train, score=ratio * base.score)
    workers = decisions.workers * len(device_names(study.spec.run.devices))
    gain = 1 + COMPILE_GAIN[decisions.precision] * decisions.compiles
    once = COMPILE_SECONDS * len(study.variants) / decisions.workers * decisions.compiles
    if study.spec.search is not None:
        rounds = study.spec.search.trials * len(study.seeds)
        trials = [paces[trial.variant].of(trial) for trial in study.representatives()] * rounds
    else:
        trials = [paces[trial.variant].of(trial) for trial in report.trials]
    profile = study.spec.measure.profile_seconds * study.spec.measure.profile
    return Estimate(start_up + profile + once, makespan(trials, workers) / gain)


def decisions_of(study: Study, report: PlanReport) -> Decisions:
    """Return how the study would be computed on this machine."""
    return decide(
        study.spec,
        trials=report.searched or len(report.trials),
        device=device_names(study.spec.run.devices)[0],
        train_flops=report.train_flops,
        variants=len(study.variants),
    )


def makespan(seconds: list[float], workers: int) -> float:
    """Return when the last of the trials ends, the longest begun first, as the driver does."""
    ends = [0.0] * workers
    for each in sorted(seconds, reverse=True):
        heapq.heappush(ends, heapq.heappop(ends) + each)
    return max(ends)


def _pace(trial: Trial, context: Context, most: int, measure_for: float) -> Pace:
    """Time a step of training and the scoring of a batch, of `most` images at most."""
    data, network = context.data(trial.data), context.network(trial)
    splits = data.splits
    count = min(trial.train["batch_size"] * trial.train.get("accumulate", 1), len(splits["train"]), most)
    settings = trial.train | {"batch_size": min(trial.train["batch_size"], count)}
    augment = Augmenter(trial.train["augment"], trial.train["crop"], data.dataset.size)
    learn = make_step(network, context.decisions, settings, (count, *augment.output, data.dataset.in_channels))
    samples = np.arange(count)
    images, masks, _ = next(splits["val"].in_order(settings["batch_size"]))

    def train() -> None:
        batch = augment(*splits["train"].take(samples), seed=trial.seed, epoch=1, samples=samples)
        learn(*batch)

    def score() -> None:
        guess = network.predict(images, masks)[0]
        image_counts(guess, masks, network.num_classes, multilabel=network.multilabel)

    network.model.train()
    train_s = _quickest(train, context.device, measure_for)
    network.model.eval()
    with torch.no_grad():
        score_s = _quickest(score, context.device, measure_for / 3)
    return Pace(train_s / count, score_s / len(images), {name: len(split) for name, split in splits.items()})


def _quickest(act: Callable[[], None], device: torch.device, seconds: float) -> float:
    """Return the seconds of the quickest call, the first left out: it pays for allocation and choice of kernels.

    On a CPU by the time of this process, where it is less: other load makes a call wait, and costs it nothing.
    """
    times: list[float] = []
    begin = time.process_time()
    while len(times) < 2 or (len(times) <= MOST_STEPS and time.process_time() - begin < seconds):
        at, spent = time.perf_counter(), time.process_time()
        act()
        synchronise(device)
        wall, own = time.perf_counter() - at, time.process_time() - spent
        times.append(min(wall, own) if device.type == "cpu" else wall)
    return min(times[1:])


@dataclass(frozen=True)
class Room:
    """Bytes: `kept` when all is done, `running` on top at most, `there` of them already, `free` where results go."""

    kept: int
    running: int
    free: int
    there: int = 0

    @property
    def enough(self) -> bool:
        """True where the study fits beside what lies on the disk."""
        return self.kept + self.running < self.free + self.there

    @property
    def text(self) -> str:
        """The room in words."""
        enough = "" if self.enough else f": {NOT_ENOUGH}"
        return (
            f"disk: about {size_text(self.kept)} when done, {size_text(self.running)} more while it runs "
            f"({size_text(self.free)} free){enough}"
        )


def room_of(study: Study, report: PlanReport, data: Dataset, results: Path) -> Room:
    """Return the room that a study takes, by its networks' parameters, its test split and `run.keep`.

    With the tables, figures and page of its report. Predictions and test images are estimated from a few of the split,
    compressed as they will be.
    """
    sizes = [4 * item.parameters for item in report.variants]
    weights = sum(sizes) / len(sizes)
    workers = decisions_of(study, report).workers
    test = data.splits["test"]
    some = np.unique(np.linspace(0, len(test) - 1, min(LOOKED_AT, len(test))).astype(int))
    masks = len(pack(test.masks[index] for index in some)) / len(some) * len(test)
    images = len(pack_images(as_bytes(test.images[index]) for index in some)) / len(some) * len(test)
    # A last state that is large is not kept.
    last = STATES if (STATES - 1) * weights <= LARGEST_LAST_STATE else 1
    states = {"best": 1, "last": last, "none": 0}[study.spec.run.keep]
    train = study.representatives()[0].train
    curves = train["epochs"] * (EPOCH_BYTES + STEP_BYTES * len(data.splits["train"]) / train["batch_size"])
    counts = COUNT_BYTES * data.num_classes * (len(data.splits["val"]) + len(test))
    mirrors = JOURNAL_BYTES + WANDB_BYTES * (resolve_mode(study.spec.track.wandb) != "disabled")
    trial = RECORD_BYTES + curves + counts + mirrors + REPORT_OF_TRIAL + states * weights + ROUGHER * masks
    here = next(parent for parent in (results, *results.absolute().parents) if parent.exists())
    return Room(
        kept=round(report.runs[1] * trial + masks + images + REPORT_OF_VARIANT * len(sizes)),
        running=workers * GENERATIONS * STATES * max(sizes),
        free=shutil.disk_usage(here).free,
        there=size_of(results / "trials"),
    )
