"""Ray Tune on the same grid as its documentation shows it: a function trainable, `grid_search`, two trials at once."""

from __future__ import annotations

import copy
import logging
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray import tune

from ablate.study.trial import Trial
from benchmarks import common
from benchmarks.common import Check, TrialResult, Work
from benchmarks.peers.plain import Script


def loader_workers() -> int:
    """None where a trial has one core, as on the CPU that this is for; two trials share the cores beside a GPU."""
    return common.default_workers() // 2 if common.default_device().type == "cuda" else 0


def train(config: dict[str, Any], work: Work) -> None:
    """Return the trainable: reports val mIoU every epoch, and everything at the end."""
    trial = chosen(work, config)
    common.prepare()
    script, result = Script(work, trial, workers=loader_workers()), TrialResult.of(trial)
    weights: dict[str, Any] = {}
    epochs = trial.train["epochs"]
    for epoch in range(1, epochs + 1):
        began = time.perf_counter()
        result.train_loss.append(script.train_epoch())
        middle = time.perf_counter()
        if result.improves(epoch, script.evaluate(script.loaders["val"])):
            weights = copy.deepcopy(script.model.state_dict())
        result.train_s += middle - began
        result.validation_s += time.perf_counter() - middle
        if epoch < epochs:
            tune.report({"val_mean_iou": result.val_mean_iou, "epoch": epoch})
    began = time.perf_counter()
    script.model.load_state_dict(weights)
    result.test_mean_iou = script.evaluate(script.loaders["test"])
    result.test_s = time.perf_counter() - began
    tune.report({"val_mean_iou": result.val_mean_iou, "epoch": epochs, "result": asdict(result)})


def check(config: dict[str, Any], work: Work, rounds: int) -> None:
    """Return the loop against bare steps, while another trial does the same on the other core."""
    trial = chosen(work, config)
    common.prepare()
    script = Script(work, trial, workers=loader_workers())
    found = common.alternate(trial.variant, rounds, script.train_epoch, script.bare_steps())
    tune.report({"val_mean_iou": 0.0, "check": asdict(found)})


def chosen(work: Work, config: dict[str, Any]) -> Trial:
    """Return the trial that a configuration of the grid means."""
    key = (config["variant"], config["lr"], config["seed"])
    return next(trial for trial in work.trials if (trial.variant, trial.train["lr"], trial.seed) == key)


def fit(trials: list[Trial], trainable: Any, folder: str) -> list[dict[str, Any]]:
    """Run the grid of `trials`, two at once; the last report of each."""
    resources: dict[str, float] = {"cpu": max(1, (os.cpu_count() or 1) // 2)}
    if common.default_device().type == "cuda":
        resources["gpu"] = 0.5
    keys = {
        "variant": [trial.variant for trial in trials],
        "lr": [trial.train["lr"] for trial in trials],
        "seed": [trial.seed for trial in trials],
    }
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        param_space={name: tune.grid_search(list(dict.fromkeys(values))) for name, values in keys.items()},
        tune_config=tune.TuneConfig(metric="val_mean_iou", mode="max", reuse_actors=True),
        run_config=tune.RunConfig(storage_path=folder, verbose=0),
    )
    grid = tuner.fit()
    if grid.errors:
        raise grid.errors[0]
    return [grid[index].metrics or {} for index in range(len(grid))]


def main() -> None:
    """Train the study."""
    arguments = common.peer_parser(__doc__ or "").parse_args()
    work = common.load_work(arguments.study, arguments.override)
    # The workers import this package from where it lies, whatever folder Ray starts them in.
    here = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": path, common.DEVICE: common.default_device().type}},
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            if arguments.check:
                trainable = tune.with_parameters(check, work=work, rounds=arguments.check)
                reports = fit(common.check_trials(work), trainable, folder)
                common.write_checks(arguments.out, "ray", [Check(**report["check"]) for report in reports])
                return
            reports = fit(work.trials, tune.with_parameters(train, work=work), folder)
            common.write_results(arguments.out, "ray", [TrialResult(**report["result"]) for report in reports])
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
