"""`ablate` and its peers on the same study, in turn and repeated: the command behind `make bench`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ablate.records.store import Results
from ablate.train.device import cores, device_class, has_amx
from benchmarks import common
from benchmarks.common import has_bfloat16, load_work, study_flops, versions
from benchmarks.matmul import matmul_rate
from benchmarks.peers.expert import Cost, choose
from benchmarks.phases import phases
from benchmarks.tables import render, summarise, write_both

ROOT = Path(__file__).resolve().parents[1]
PEERS = {"plain": "plain", "lightning": "lightning_optuna", "ray": "ray_tune", "expert": "expert"}
# `ablate` as it is, and with what a user may give up for speed: overrides of the study.
ABLATE = {"ablate": (), "ablate_fast": ("run.deterministic=false",)}
# Whose caches the expert fills while it finds out where compiling pays.
CALIBRATION_CACHES = "calibration"
PACKAGES = ("torch", "optuna", "lightning", "ray", "ablate-bench")


class Comparison:
    """One comparison: every contestant in a process of its own, with caches of its own in a temporary folder."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.study, self.overrides = arguments.study.resolve(), list(arguments.override)
        self.scratch = scratch
        self.device: str = arguments.device
        self.calibration: dict[str, Path] = {}

    def _environment(self, caches: str) -> dict[str, str]:
        environment = dict(os.environ)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            environment.pop(name, None)  # everybody may use the whole machine
        folder = self.scratch / "caches" / caches
        environment[common.DEVICE] = self.device
        environment["ABLATE_CACHE"] = str(folder / "data")
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        return environment

    def _study(self, *more: str) -> list[str]:
        return [str(self.study), *(word for override in (*self.overrides, *more) for word in ("-o", override))]

    def peer(self, name: str, *more: str, caches: str | None = None) -> Any:
        """Run a peer's script; what it wrote."""
        out = self.scratch / f"{name}.json"
        out.unlink(missing_ok=True)
        command = [sys.executable, "-m", f"benchmarks.peers.{PEERS[name]}", "--study", *self._study()]
        self._call([*command, "--out", str(out), *more], self._environment(caches or name))
        return json.loads(out.read_text())

    def _call(self, command: Sequence[str], environment: dict[str, str]) -> None:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")

    def timed(self, name: str, number: int) -> dict[str, Any]:
        """One timed run of a contestant."""
        common.adopt_orphans()
        before, busy, began, tick = common.children_seconds(), common.busy_seconds(), time.time(), time.perf_counter()
        if name in ABLATE:
            folder = self.scratch / f"{name}-{number}"
            shutil.rmtree(folder, ignore_errors=True)
            study = self._study(f"run.devices=[{common.device_name(self.device)}]", *ABLATE[name])
            command = [sys.executable, "-m", "ablate.cli", "run", *study, "--no-profile", "--out", str(folder)]
            self._call(command, self._environment(name))
        else:
            document = self.peer(name, *self._calibrated(name, number), caches=self._caches(name, number))
        wall = time.perf_counter() - tick
        cpu = common.children_seconds() - before
        run: dict[str, Any] = {
            "wall_s": wall,
            "cpu_s": cpu,
            "others_cores": max(0.0, (common.busy_seconds() - busy - cpu) / wall),
        }
        if name in ABLATE:
            run["trials"] = ablate_trials(folder)
            run["phases"] = phases(folder, began=began, ended=began + wall)
            run["decisions"] = {key: entry["value"] for key, entry in Results(folder).read_run()["decisions"].items()}
        else:
            run["trials"] = document["trials"]
        return run

    def _calibrated(self, name: str, number: int) -> list[str]:
        if name != "expert" or not self.calibration:
            return []
        return ["--calibration", str(self.calibration["cold" if number == 0 else "warm"])]

    def _caches(self, name: str, number: int) -> str:
        """Whose caches a peer finds: its own, but an expert who compiles with full caches finds those full.

        Its own are not, where it was cheaper not to compile in the first round.
        """
        return CALIBRATION_CACHES if name == "expert" and number > 0 and self.calibration else name

    def calibrate(self) -> None:
        """Let the expert find out, untimed, where compiling pays: with an empty compile cache and with a full one."""
        for label in ("cold", "warm"):
            path = self.scratch / f"calibration-{label}.json"
            costs = self.peer("expert", "--calibrate", caches=CALIBRATION_CACHES)
            path.write_text(json.dumps(costs))
            self.calibration[label] = path


def ablate_trials(folder: Path) -> list[dict[str, Any]]:
    """Return the trials of a results folder in the words of the peers' results."""
    records, bad = Results(folder).records()
    if bad or any(record.status != "complete" for record in records):
        raise SystemExit(f"not all trials in {folder} are complete")
    return [
        {
            "variant": record.variant,
            "lr": record.train["lr"],
            "seed": record.seed,
            "best_epoch": record.metrics["best_epoch"],
            "val_mean_iou": record.metrics["val_mean_iou"],
            "test_mean_iou": record.metrics["test_mean_iou"],
            "train_s": record.timing["train_s"],
            "validation_s": record.timing["validation_s"],
            "test_s": record.timing["test_s"],
        }
        for record in records
    ]


def main() -> None:
    """Compare, and write `<out>/<name>.json` and `.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=ROOT / "benchmarks" / "studies" / "street.yaml")
    parser.add_argument("-o", "--override", action="append", default=[], help="override a field, as `ablate run -o`")
    parser.add_argument("--name", help="name of the result; default that of the study file")
    parser.add_argument("--rounds", type=int, default=2, help="rounds; the first has cold caches, the others warm ones")
    parser.add_argument("--only", nargs="+", choices=[*ABLATE, *PEERS], default=["ablate", *PEERS])
    parser.add_argument(
        "--check", type=int, default=3, metavar="ROUNDS", help="rounds of loop against bare steps; 0: none"
    )
    parser.add_argument(
        "--no-calibration", action="store_true", help="the expert runs eagerly, without trying to compile"
    )
    common.add_device_option(parser)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    began = time.time()
    os.environ[common.DEVICE] = arguments.device
    dtype = torch.bfloat16 if has_bfloat16() else torch.float32
    rates = [matmul_rate(dtype)]
    with tempfile.TemporaryDirectory() as scratch:
        comparison = Comparison(arguments, Path(scratch))
        checks = {}
        if arguments.check:
            for name in arguments.only:
                if name not in ABLATE:
                    _say(began, f"{name}: its loop against its bare steps")
                    found = comparison.peer(name, "--check", str(arguments.check), caches="check")
                    checks[name] = found["checks"]
        if "expert" in arguments.only and not arguments.no_calibration:
            _say(began, "expert: where compiling pays")
            comparison.calibrate()
        rounds = []
        for number in range(arguments.rounds):
            runs = {}
            for name in arguments.only:
                runs[name] = comparison.timed(name, number)
                _say(began, f"round {number + 1}, {name}: {runs[name]['wall_s']:.1f} s")
            rounds.append({"cache": "cold" if number == 0 else "warm", "runs": runs})
            rates.append(matmul_rate(dtype))
        document = describe(arguments, comparison, rounds, rates)
    document["checks"] = checks
    document["summary"] = summarise(document)
    write_both(arguments.out / document["name"], document, render(document))


def describe(
    arguments: argparse.Namespace, comparison: Comparison, rounds: list[dict[str, Any]], rates: list[list[float]]
) -> dict[str, Any]:
    """Return what was compared, on what, with what."""
    work = load_work(arguments.study, arguments.override)
    medians = [statistics.median(entry) for entry in rates]
    document: dict[str, Any] = {
        "name": arguments.name or arguments.study.stem,
        "command": shlex.join(["python", "-m", "benchmarks.compare", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": {
            "device": device_class(str(common.default_device())),
            "cores": cores(),
            "amx": has_amx(),
        },
        "versions": versions(*PACKAGES),
        "study": ", ".join([arguments.study.name, *arguments.override]),
        "trials": len(work.trials),
        "flops": study_flops(work),
        "matmul": {
            "dtype": "bfloat16" if has_bfloat16() else "float32",
            "median": statistics.median(medians),
            "min": min(medians),
            "max": max(medians),
        },
        "bfloat16": has_bfloat16(),
        "contestants": arguments.only,
        "rounds": rounds,
    }
    if comparison.calibration:
        costs = {
            label: [Cost(**cost) for cost in json.loads(path.read_text())]
            for label, path in comparison.calibration.items()
        }
        document["expert_modes"] = {label: choose(found, work) for label, found in costs.items()}
        document["calibration"] = {label: [vars(cost) for cost in found] for label, found in costs.items()}
    if "ablate" in arguments.only:
        document["decisions"] = rounds[-1]["runs"]["ablate"]["decisions"]
    return document


def _say(began: float, text: str) -> None:
    print(f"[{time.time() - began:6.0f} s] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
