"""The rates that the defaults on a GPU follow from: whole steps by engine and by workers. `--help` for usage.

Beside them the device's matrix products and copies, to set them against. Works on any GPU, and with `--tiny` on a CPU.
Finished parts are kept in `<out>/<name>.parts/`: stop it when you like, the same command goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ablate.models import forward_flops
from ablate.models.unet import unet
from ablate.records.store import finite
from ablate.run.manifest import gpu_driver
from ablate.study.reader import read_study
from ablate.train.device import cores, device_class, prepare_process
from ablate.train.engine.config import decide
from benchmarks.common import GPU_ENGINES, versions
from benchmarks.gpu_probe import Probe, engine_answers, lane_rate, random_data, timed
from benchmarks.parts import Parts
from benchmarks.tables import table

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 11
STUDY = """\
study: probe
data: {{name: street, size: [{height}, {width}], train: 8, val: 2, test: 2}}
model: {{name: unet, width: {base}, depth: {depth}}}
variants: {{unet: {{}}}}
grid: {{lr: [1e-3]}}
seeds: 1
train: {{epochs: 1, batch_size: {batch}}}
run: {{deterministic: {deterministic}}}
"""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured: images, batch, base widths, levels, workers; seconds for each figure."""

    size: tuple[int, int] = (360, 480)
    batch: int = 8
    bases: tuple[int, ...] = (32, 64)
    depth: int = 4
    workers: tuple[int, ...] = (1, 2, 4)
    seconds: float = 0.5
    matrix: int = 8192
    copied: int = 2**30


TINY = Sizes((32, 48), 2, (4,), 2, (1, 2), 0.01, 128, 2**16)


def median_seconds(work: Callable[[], object], device: torch.device, most: float) -> float:
    """Return the median seconds of one call, measured for about `most` seconds after a warm-up."""
    for _ in range(3):
        work()
    once = max(timed(work, 1, device), 1e-7)
    times = max(1, int(most / 5 / once))
    return statistics.median(timed(work, times, device) for _ in range(5)) / times


def simple_rates(device: torch.device, sizes: Sizes) -> dict[str, float]:
    """Return TFLOP/s of square matrix products, by precision, and GB/s of a copy, read and written."""
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        left, right = (torch.randn(2, sizes.matrix, sizes.matrix, device=device)).to(dtype)
        seconds = median_seconds(functools.partial(torch.matmul, left, right), device, sizes.seconds)
        found[f"{str(dtype).removeprefix('torch.')}_matmul_tflops"] = 2 * sizes.matrix**3 / seconds / 1e12
    source = torch.empty(sizes.copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source), device, sizes.seconds)
    found["copy_gb_per_s"] = 2 * sizes.copied / seconds / 1e9
    return found


def step_flops(sizes: Sizes, base: int) -> float:
    """Return the floating-point operations of a step on a batch: three times the forward pass."""
    model = functools.partial(unet, in_channels=3, num_classes=CLASSES, width=base, depth=sizes.depth)
    return 3.0 * forward_flops(model, sizes.size, 3) * sizes.batch


def engines_and_workers(
    name: str, sizes: Sizes, base: int, scratch: Path, engines: tuple[str, ...], *, deterministic: bool
) -> dict[str, Any]:
    """Return images a second of a training step by engine, and by workers with the fastest engine, each run anew."""
    height, width = sizes.size
    path = scratch / f"probe-{base}.yaml"
    settings = {"height": height, "width": width, "base": base, "depth": sizes.depth, "batch": sizes.batch}
    path.write_text(STUDY.format(**settings, deterministic=str(deterministic).lower()), encoding="utf-8")
    study = read_study(path)
    decisions = decide(study.spec, trials=1, device=name, train_flops=0, variants=1)
    data = random_data(3, CLASSES, sizes.size, sizes.batch)
    asked = Probe(study, data, decisions, name, seconds=sizes.seconds)
    flops = step_flops(sizes, base)
    rows = []
    for engine in engines:
        (answer,) = engine_answers(asked, [engine])
        cost = answer["cost"]
        rate = None if cost["error"] else sizes.batch / cost["step_s"]
        cost = {key: finite(value) if isinstance(value, float) else value for key, value in cost.items()}
        tflops = None if rate is None else flops * rate / sizes.batch / 1e12
        about = {"base": base, "engine": engine, "deterministic": deterministic}
        rows.append({**about, "images_per_s": rate, "tflops": tflops, **cost})
    fastest = max(rows, key=lambda row: row["images_per_s"] or 0.0)["engine"]
    workers = []
    for count in sizes.workers:
        rate_of = lane_rate(asked, fastest, count)
        found = dataclasses.asdict(rate_of) if rate_of else {"workers": count, "images_per_s": None, "used_bytes": 0}
        workers.append({"base": base, "engine": fastest, "deterministic": deterministic, **found})
    return {"engines": rows, "workers": workers}


def probe(name: str, sizes: Sizes, scratch: Path, engines: tuple[str, ...], parts: Parts) -> dict[str, Any]:
    """Everything, a figure after the other."""
    # Whole steps first: their processes share the device with this one, which holds nothing yet.
    whole: dict[str, list[Any]] = {"engines": [], "workers": []}
    for base in sizes.bases:
        for deterministic in (True, False) if name.startswith("cuda") else (True,):
            found = parts.of(
                f"steps-{base}{'-deterministic' * deterministic}",
                functools.partial(
                    engines_and_workers, name, sizes, base, scratch, engines, deterministic=deterministic
                ),
            )
            for part, rows in found.items():
                whole[part] += rows
    prepare_process(cores(), deterministic=False)
    return {"rates": parts.of("rates", lambda: simple_rates(torch.device(name), sizes)), **whole}


def render(document: dict[str, Any]) -> str:
    """Return the probes as Markdown."""
    head = [
        f"# {document['name']}",
        "",
        f"- command: `{document['command']}`",
        f"- device: {document['device']}; {', '.join(f'{k} {v}' for k, v in document['versions'].items())}",
        f"- images {document['sizes']['size'][0]}×{document['sizes']['size'][1]}, batches of "
        f"{document['sizes']['batch']}, bfloat16, channels last",
    ]
    head += [f"- {name.replace('_', ' ')}: {value:.4g}" for name, value in document["rates"].items()]
    head += [f"- {note}" for note in document.get("notes", ())]
    parts = ["\n".join(head)]
    for title, part, columns in (
        ("Engines, whole training step", "engines",
         ("base", "deterministic", "engine", "images_per_s", "tflops", "first_s", "step_s", "predict_s", "peak_bytes",
          "error")),
        ("Workers with the fastest engine", "workers",
         ("base", "deterministic", "engine", "workers", "images_per_s", "used_bytes")),
    ):  # fmt: skip
        rows = [[_cell(row.get(column)) for column in columns] for row in document[part]]
        if not rows:
            continue
        parts.append(f"## {title}\n\n{table([column.replace('_', ' ') for column in columns], rows)}")
    # What somebody measured beside it on the same machine: a title, and rows of one kind.
    for title, rows in document.get("beside", {}).items():
        parts.append(f"## {title}\n\n{table(list(rows[0]), [list(map(_cell, row.values())) for row in rows])}")
    return "\n\n".join(parts) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


def main() -> None:
    """Probe, and write `<out>/<name>.json` and `.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--name", help="name of the result; default made from the device's")
    parser.add_argument("--tiny", action="store_true", help="sizes that take seconds, to see that it runs")
    parser.add_argument("--engines", nargs="+", choices=GPU_ENGINES, help="default: all, on a CPU the eager one")
    parser.add_argument("--bases", nargs="+", type=int, help="widths of the U-Net; default 32 64")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    sizes = TINY if arguments.tiny else Sizes()
    if arguments.bases:
        sizes = dataclasses.replace(sizes, bases=tuple(arguments.bases))
    on_cuda = arguments.device.startswith("cuda")
    engines = tuple(arguments.engines or (GPU_ENGINES if on_cuda else ("eager",)))
    arguments.out.mkdir(parents=True, exist_ok=True)
    kind = device_class(arguments.device)
    name = arguments.name or "probes-" + "-".join(kind.lower().split()[:4]).replace("/", "-") + "-tiny" * arguments.tiny
    document = {
        "name": name,
        "command": shlex.join(["python", "-m", "benchmarks.probes", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "device": kind,
        "driver": gpu_driver() if on_cuda else None,
        "versions": versions("torch", "ablate-bench"),
        "sizes": dataclasses.asdict(sizes),
    }
    parts = Parts(arguments.out / f"{name}.parts")
    parts.are_of([kind, versions("torch"), dataclasses.asdict(sizes), list(engines)])
    with tempfile.TemporaryDirectory() as scratch:
        document |= probe(arguments.device, sizes, Path(scratch), engines, parts)
    (arguments.out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    text = render(document)
    (arguments.out / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
