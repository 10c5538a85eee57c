"""What a device is good at, for networks like these: rates that the engine's defaults follow from. `--help` for usage.

Convolutions by level, forward and backward; upsampling two ways; the first layer padded to 8 channels; engines and
workers on whole training steps; matrix products and copies. Works on any GPU, and with `--tiny` on a CPU.
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
import torch.nn.functional as F
from torch import Tensor, nn

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
    """What is probed: images, batch, base widths, levels, workers; seconds for each figure."""

    size: tuple[int, int] = (360, 480)
    batch: int = 8
    bases: tuple[int, ...] = (16, 32, 64)
    depth: int = 4
    workers: tuple[int, ...] = (1, 2, 4)
    seconds: float = 0.5
    matrix: int = 8192
    copied: int = 2**30


TINY = Sizes((32, 48), 2, (4,), 2, (1, 2), 0.01, 128, 2**16)


class Device:
    """The device under test, and how long work takes on it."""

    def __init__(self, name: str, seconds: float) -> None:
        self.device, self._seconds = torch.device(name), seconds
        self.dtype = torch.bfloat16
        self.noise = torch.Generator(self.device).manual_seed(0)

    def seconds(self, work: Callable[[], object]) -> float:
        """Median seconds of one call, over about the time that a figure may take, after a warm-up."""
        for _ in range(3):
            work()
        once = max(timed(work, 1, self.device), 1e-7)
        times = max(1, int(self._seconds / 5 / once))
        return statistics.median(timed(work, times, self.device) for _ in range(5)) / times

    def noisy(self, *shape: int) -> Tensor:
        """Random numbers, channels last where there are four dimensions."""
        found = torch.randn(shape, device=self.device, generator=self.noise).to(self.dtype)
        return found.to(memory_format=torch.channels_last) if len(shape) == 4 else found

    def module(self, module: nn.Module) -> nn.Module:
        """Return a module on the device in its precision and layout."""
        return module.to(self.device, self.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def convolutions(device: Device, sizes: Sizes, base: int) -> list[dict[str, Any]]:
    """TFLOP/s of the 3×3 convolutions of each level of a U-Net: forward; backward to the input and the weights."""
    rows = []
    height, width = sizes.size
    shapes = [("first", 3, base, height, width)]
    for level in range(sizes.depth + 1):
        channels = base * 2**level
        shapes.append((f"level {level}", channels, channels, height, width))
        if level < sizes.depth:
            shapes.append((f"level {level} decoder", 2 * channels, channels, height, width))
        height, width = -(-height // 2), -(-width // 2)
    for name, before, after, high, wide in shapes:
        layer = device.module(nn.Conv2d(before, after, 3, padding=1, bias=False))
        x = device.noisy(sizes.batch, before, high, wide).requires_grad_(name != "first")
        rows.append({"base": base, "layer": name, "channels": [before, after], "size": [high, wide]})
        flops = 2 * 9 * before * after * high * wide * sizes.batch
        rows[-1] |= both_ways(device, layer, x, flops)
    return rows


def both_ways(device: Device, layer: nn.Module, x: Tensor, flops: float) -> dict[str, float]:
    """Milliseconds and TFLOP/s of a layer forward and backward; the backward pass has twice the FLOPs."""
    with torch.no_grad():
        forward = device.seconds(lambda: layer(x))
    y = layer(x)
    gradient = torch.randn_like(y)
    wanted = [x] * x.requires_grad + list(layer.parameters())
    backward = device.seconds(lambda: torch.autograd.grad(y, wanted, gradient, retain_graph=True))
    back_flops = flops * len(wanted)
    return {
        "forward_ms": 1e3 * forward,
        "backward_ms": 1e3 * backward,
        "forward_tflops": flops / forward / 1e12,
        "backward_tflops": back_flops / backward / 1e12,
    }


class Shuffled(nn.Module):
    """What a transposed convolution of kernel and stride 2 does, as a matrix product and a shuffle of pixels."""

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__()
        before, after = layer.weight.shape[:2]
        # Pixel shuffle takes channel c, row i, column j from channel 4c + 2i + j.
        self.weight = nn.Parameter(layer.weight.detach().permute(1, 2, 3, 0).reshape(4 * after, before, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', 2H, 2W)."""
        return F.pixel_shuffle(F.conv2d(x, self.weight), 2)


def upsampling(device: Device, sizes: Sizes, base: int) -> list[dict[str, Any]]:
    """Return the transposed convolution of each level against a matrix product and a shuffle."""
    rows = []
    height, width = sizes.size
    for level in range(sizes.depth):
        height, width, channels = -(-height // 2), -(-width // 2), base * 2**level
        layer = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2, bias=False)
        x = device.noisy(sizes.batch, 2 * channels, height, width).requires_grad_()
        flops = 2 * 4 * 2 * channels * channels * height * width * sizes.batch
        for way, module in (("transposed", layer), ("shuffled", Shuffled(layer))):
            row = {"base": base, "level": level, "way": way}
            rows.append(row | both_ways(device, device.module(module), x, flops))
    return rows


def first_layer(device: Device, sizes: Sizes, base: int) -> list[dict[str, Any]]:
    """Return the first convolution on 3 channels and on 8, five of them zero; FLOPs of the three that count."""
    flops = 2 * 9 * 3 * base * sizes.size[0] * sizes.size[1] * sizes.batch
    rows = []
    for channels in (3, 8):
        layer = device.module(nn.Conv2d(channels, base, 3, padding=1, bias=False))
        x = device.noisy(sizes.batch, channels, *sizes.size)
        rows.append({"base": base, "channels": channels} | both_ways(device, layer, x, flops))
    return rows


def simple_rates(device: Device, sizes: Sizes) -> dict[str, float]:
    """TFLOP/s of square matrix products, by precision, and GB/s of a copy, read and written."""
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        left, right = (torch.randn(2, sizes.matrix, sizes.matrix, device=device.device)).to(dtype)
        seconds = device.seconds(functools.partial(torch.matmul, left, right))
        found[f"{str(dtype).removeprefix('torch.')}_matmul_tflops"] = 2 * sizes.matrix**3 / seconds / 1e12
    source = torch.empty(sizes.copied, dtype=torch.uint8, device=device.device)
    target = torch.empty_like(source)
    found["copy_gb_per_s"] = 2 * sizes.copied / device.seconds(lambda: target.copy_(source)) / 1e9
    return found


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
    rows = []
    for engine in engines:
        (answer,) = engine_answers(asked, [engine])
        cost = answer["cost"]
        rate = None if cost["error"] else sizes.batch / cost["step_s"]
        cost = {key: finite(value) if isinstance(value, float) else value for key, value in cost.items()}
        rows.append({"base": base, "engine": engine, "deterministic": deterministic, "images_per_s": rate, **cost})
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
    device = Device(name, sizes.seconds)
    document: dict[str, Any] = {"rates": parts.of("rates", lambda: simple_rates(device, sizes)), **whole}
    for part, measure in (("convolutions", convolutions), ("upsampling", upsampling), ("first_layer", first_layer)):
        document[part] = []
        for base in sizes.bases:
            try:
                document[part] += parts.of(f"{part}-{base}", functools.partial(measure, device, sizes, base))
            except torch.OutOfMemoryError as error:
                print(f"{part} at {base} channels left out: {str(error).splitlines()[0]}", file=sys.stderr)
    return document


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
    parts = ["\n".join(head)]
    both = ("forward_ms", "forward_tflops", "backward_ms", "backward_tflops")
    for title, part, columns in (
        ("Engines, whole training step", "engines",
         ("base", "deterministic", "engine", "images_per_s", "first_s", "step_s", "predict_s", "peak_bytes", "error")),
        ("Workers with the fastest engine", "workers",
         ("base", "deterministic", "engine", "workers", "images_per_s", "used_bytes")),
        ("Convolutions", "convolutions", ("base", "layer", "channels", "size", *both)),
        ("Upsampling: transposed convolution, or matrix product and pixel shuffle", "upsampling",
         ("base", "level", "way", *both)),
        ("First layer: 3 channels, or 8 with zeros", "first_layer", ("base", "channels", *both)),
    ):  # fmt: skip
        rows = [[_cell(row.get(column)) for column in columns] for row in document[part]]
        parts.append(f"## {title}\n\n{table([column.replace('_', ' ') for column in columns], rows)}")
    return "\n\n".join(parts) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "×".join(map(str, value))
    return "–" if value is None else str(value)


def main() -> None:
    """Probe, and write `<out>/<name>.json` and `.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--name", help="name of the result; default made from the device's")
    parser.add_argument("--tiny", action="store_true", help="sizes that take seconds, to see that it runs")
    parser.add_argument("--engines", nargs="+", choices=GPU_ENGINES, help="default: all, on a CPU the eager one")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    sizes = TINY if arguments.tiny else Sizes()
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
