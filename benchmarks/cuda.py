"""`ablate` and its peers on one GPU, stopped and resumed at any time: the command behind `make bench-cuda`.

Every finished part (a check, a calibration, a contestant's run of a round, a profile) is kept in `<out>/<name>.parts/`
and not repeated: the same command goes on where it was stopped. Delete the folder to begin anew.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ablate.train.device import device_class
from benchmarks import common, hotspots
from benchmarks.common import versions
from benchmarks.compare import ABLATE, CALIBRATION_CACHES, PEERS, ROOT, Comparison, describe
from benchmarks.matmul import matmul_rate
from benchmarks.parts import Parts
from benchmarks.tables import render, summarise, write_both

STUDIES = ROOT / "benchmarks" / "studies"
# Result name, study, and the goals that its table is held against.
COMPARISONS = (
    ("camvid-gpu", STUDIES / "camvid-gpu.yaml", "one H200"),
    ("camvid-gpu-small", STUDIES / "camvid-gpu-small.yaml", "one H200, small study"),
)
CONTESTANTS = (*ABLATE, *PEERS)
# What a contestant cannot run without, besides `ablate` itself.
NEEDS = {"lightning": ("lightning", "torchmetrics"), "ray": ("ray",)}
# With --tiny: everything is run, in seconds instead of minutes, on images that need no download.
TINY_STUDY = STUDIES / "street.yaml"
TINY = (
    "data.size=[32,48]", "data.train=16", "data.val=4", "data.test=4", "model.width=4",
    "model.depth=2", "grid.lr=[1e-3]", "train.epochs=1",
)  # fmt: skip


class ProfileFailed(Exception):
    """A profile's process ended without one."""


def compare(arguments: argparse.Namespace, parts: Parts) -> dict[str, Any]:
    """One study with all contestants, round after round; the document of `benchmarks.compare`."""
    scratch = parts.folder / "scratch"  # kept: warm caches are part of what was done
    scratch.mkdir(exist_ok=True)
    comparison = Comparison(arguments, scratch)
    device = str(common.default_device())
    dtype = torch.bfloat16 if common.has_bfloat16() else torch.float32
    # Which contestants and how many rounds may change from call to call: their parts stand each for itself.
    parts.are_of({"study": _fingerprint(arguments), "on": [device_class(device), *versions("torch").values()]})
    rates = [parts.of("matmul-0", lambda: matmul_rate(dtype))]
    checks = {}
    for name in arguments.only:
        if name in PEERS and arguments.check:
            checks[name] = parts.of(
                f"check-{name}",
                functools.partial(_checks, comparison, name, arguments.check),
            )
    if "expert" in arguments.only and arguments.calibrate:
        for label in ("cold", "warm"):
            costs = parts.of(
                f"calibration-{label}", lambda: comparison.peer("expert", "--calibrate", caches=CALIBRATION_CACHES)
            )
            comparison.calibration[label] = scratch / f"calibration-{label}.json"
            comparison.calibration[label].write_text(json.dumps(costs), encoding="utf-8")
    rounds = []
    for number in range(arguments.rounds):
        runs = {
            name: parts.of(f"round-{number}-{name}", functools.partial(_timed, comparison, parts, name, number))
            for name in arguments.only
        }
        caches = {run["cache"] for run in runs.values()}
        # A round of which a part was made elsewhere, with empty caches, is neither: the table leaves it out.
        rounds.append({"cache": caches.pop() if len(caches) == 1 else "mixed", "runs": runs})
        rates.append(parts.of(f"matmul-{number + 1}", lambda: matmul_rate(dtype)))
    document = describe(arguments, comparison, rounds, rates)
    document["checks"] = checks
    return document


def _checks(comparison: Comparison, name: str, rounds: int) -> Any:
    return comparison.peer(name, "--check", str(rounds), caches="check")["checks"]


def _timed(comparison: Comparison, parts: Parts, name: str, number: int) -> dict[str, Any]:
    """Time one run; its caches are warm only where this machine filled them in the round before."""
    needed = [
        f"round-{number - 1}-{name}",
        *(["calibration-warm"] if name == "expert" and comparison.calibration else []),
    ]
    warm = number > 0 and all(parts.made_here(part) for part in needed)
    return {**comparison.timed(name, number if warm else 0), "cache": "warm" if warm else "cold"}


def _fingerprint(arguments: argparse.Namespace) -> list[str]:
    return [arguments.study.read_text(encoding="utf-8"), *arguments.override, arguments.device]


def profiles(arguments: argparse.Namespace, parts: Parts, engines: list[str]) -> list[dict[str, Any]]:
    """Return the baseline's hot spots, eagerly and in the engine that `ablate` chose, each by a process of its own."""

    def one(engine: str, out: Path) -> dict[str, Any]:
        overrides = [word for override in arguments.override for word in ("-o", override)]
        command = [sys.executable, "-m", "benchmarks.hotspots", "--study", str(arguments.study), *overrides]
        command += ["--engine", engine, "--device", arguments.device, "--steps", str(arguments.steps)]
        done = subprocess.run([*command, "--out", str(out)], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise ProfileFailed(f"exit code {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1]}")
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found

    found = []
    for engine in dict.fromkeys(engines):
        out = parts.folder / "scratch" / f"profile-{engine}.json"
        try:
            found.append(parts.of(f"profile-{engine}", functools.partial(one, engine, out)))
        except ProfileFailed as error:
            # Profilers crash, above all beside graphs: what was compared stands without them.
            found.append({"engine": engine, "failed": str(error)})
    return found


def text_of(document: dict[str, Any]) -> str:
    """Return the comparison as Markdown, with the share of the matrix-product rate in training and what is left."""
    parts = [render(document)]
    rate = document["matmul"]["median"]
    parts.append("## What a training step spends its time on\n")
    for found in document["profiles"]:
        if "failed" in found:
            parts.append(f"No profile of the engine {found['engine']} ({found['failed']}).\n")
        else:
            parts.append(f"{found['tflops'] / rate:.1%} of the matrix-product rate. {hotspots.render(found)}\n")
    return "\n".join(parts)


def main() -> None:
    """Compare, and write `<out>/<name>.json` and `.md` for every study."""
    parser = argparse.ArgumentParser(description=__doc__)
    common.add_device_option(parser)
    parser.add_argument("--root", type=Path, help="the CamVid images; default data/camvid")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, help="default: all whose packages are installed")
    parser.add_argument("--studies", nargs="+", choices=[name for name, _, _ in COMPARISONS], help="default both")
    parser.add_argument("--rounds", type=int, default=2, help="rounds; the first has cold caches, the others warm ones")
    parser.add_argument("--check", type=int, default=2, metavar="ROUNDS", help="rounds of loop against bare steps")
    parser.add_argument("--no-calibration", dest="calibrate", action="store_false", help="the expert does not compile")
    parser.add_argument("--steps", type=int, default=20, help="training steps that are profiled")
    parser.add_argument("--tiny", action="store_true", help="generated images and a net of 4 channels: does it run?")
    parser.add_argument("-o", "--override", action="append", default=[], help="override a field, as `ablate run -o`")
    parser.add_argument("--name", default="", help="prefix of the results' names")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    if common.default_device().type == "cpu" and not arguments.tiny:
        raise SystemExit("there is no CUDA device here: --device cpu --tiny shows that everything runs")
    arguments.only = arguments.only or installed()
    given = list(arguments.override)
    for name, study, goals in COMPARISONS:
        if arguments.studies and name not in arguments.studies:
            continue
        arguments.study = TINY_STUDY if arguments.tiny else study
        arguments.name_of = arguments.name + name + "-tiny" * arguments.tiny
        arguments.override = [*_data(arguments), *given]
        parts = Parts(arguments.out / f"{arguments.name_of}.parts")
        document = compare(arguments, parts)
        document |= {"name": arguments.name_of, "goals": goals}
        document["command"] = document["command"].replace("benchmarks.compare", "benchmarks.cuda")
        document["summary"] = summarise(document)
        document["profiles"] = profiles(arguments, parts, _engines(document))
        write_both(arguments.out / arguments.name_of, document, text_of(document))


def installed() -> list[str]:
    """Return the contestants whose packages are here; the others are named on standard error."""
    missing = {name: [package for package in NEEDS.get(name, ()) if find_spec(package) is None] for name in CONTESTANTS}
    for name, packages in missing.items():
        if packages:
            print(f"left out: {name}, which needs {', '.join(packages)}", file=sys.stderr)
    return [name for name in CONTESTANTS if not missing[name]]


def _data(arguments: argparse.Namespace) -> list[str]:
    if arguments.tiny:
        return list(TINY)
    root = arguments.root or os.environ.get("ABLATE_CAMVID")
    return [f"data.root={Path(root).resolve()}"] if root else []


def _engines(document: dict[str, Any]) -> list[str]:
    chosen = document.get("decisions", {}).get("engine", "eager")
    return ["eager"] if document["machine"]["device"].startswith("cpu") else ["eager", str(chosen)]


if __name__ == "__main__":
    main()
