"""The same trial by a plain loop of torch: does it score as `ablate` does? `python -m benchmarks.plain_loop --study F`.

`plain_trial` shares the decoded images and the code of the model with `ablate`, and nothing else: its own batches,
flips, class weights, loss, validation, metric, arithmetic (float32, op by op) and draws. Seeds are independent.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ablate.data.dataset import Dataset, load_dataset
from ablate.stats.intervals import welch_interval
from ablate.study.reader import read_study
from ablate.train.device import device_class
from benchmarks.common import Work, build_model, versions
from benchmarks.paths import command_line, run
from benchmarks.tables import table, write_both

# Seeds of the plain loop begin here: no draw of its own is one of `ablate`'s.
FIRST_SEED = 1_000_000


def plain_trial(model: nn.Module, data: Dataset, train: dict[str, Any], seed: int) -> float:
    """Return the test mean IoU of the epoch that was best on val, for a fresh model of ablate's code."""
    generator = np.random.default_rng(seed)
    images = {
        name: torch.tensor(np.array(split.images)).permute(0, 3, 1, 2) / 255 for name, split in data.splits.items()
    }
    masks = {name: torch.tensor(np.array(split.masks)).long() for name, split in data.splits.items()}
    mean, std = images["train"].mean((0, 2, 3), keepdim=True), images["train"].std((0, 2, 3), keepdim=True)
    images = {name: (pixels - mean) / std for name, pixels in images.items()}
    classes, size = data.num_classes, train["batch_size"]

    def mean_iou(split: str) -> float:
        model.eval()
        with torch.no_grad():
            preds = torch.cat([model(batch).argmax(1) for batch in images[split].split(size)])
        scores = []
        for label in range(classes):
            is_target, is_pred = masks[split] == label, (preds == label) & (masks[split] != 255)
            if is_target.any():
                scores.append(float((is_target & is_pred).sum() / (is_target | is_pred).sum()))
        return float(np.mean(scores))

    weights = None
    if train["class_weights"] == "balanced":
        present = [(masks["train"] == label).flatten(1) for label in range(classes)]
        labelled = (masks["train"] != 255).flatten(1).sum(1)
        share = np.array([float(one.sum() / labelled[one.any(1)].sum()) for one in present])
        weights = torch.tensor(np.nan_to_num(np.nanmedian(share) / share), dtype=torch.float32)
    loss = nn.CrossEntropyLoss(weight=weights, ignore_index=255)
    optimizer = torch.optim.Adam(model.parameters(), lr=train["lr"])
    best, kept = -1.0, model.state_dict()
    for _ in range(train["epochs"]):
        model.train()
        order = torch.from_numpy(generator.permutation(len(masks["train"])))
        for batch in order[: len(order) // size * size].split(size):
            x, y = images["train"][batch], masks["train"][batch]
            flipped = torch.from_numpy(generator.random(len(batch)) < 0.5)
            x[flipped], y[flipped] = x[flipped].flip(-1), y[flipped].flip(-1)
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
        score = mean_iou("val")
        if score > best:
            best, kept = score, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return mean_iou("test")


def row(variant: str, ours: list[float], plain: list[float]) -> dict[str, Any]:
    """Return a variant's scores on both sides, and the difference of their means with its 95 % interval (Welch)."""
    found = welch_interval(ours, plain)
    return {"variant": variant, "ours": ours, "plain": plain, "difference": [found.value, found.low, found.high]}


def render(document: dict[str, Any]) -> str:
    """Return the comparison as Markdown."""
    rows = []
    for one in document["rows"]:
        sides = [
            f"{100 * np.mean(side):.1f} ± {100 * np.std(side, ddof=1):.1f}" for side in (one["ours"], one["plain"])
        ]
        difference, low, high = (100 * value for value in one["difference"])
        rows.append([one["variant"], *sides, f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]"])
    head = [
        f"# The same trial by a plain loop: {document['study']}",
        "",
        f"- command: `{document['command']}`",
        f"- machine: {document['machine']}; ablate in {document['precision']} ({document['engine']}), "
        "the plain loop in float32, op by op",
        f"- versions: {', '.join(f'{name} {version}' for name, version in document['versions'].items())}",
        f"- {document['trial']}; {document['seeds']} seeds a side, none of them shared",
        "- test mIoU in %: mean ± standard deviation over the seeds; 95 % interval of the difference (Welch)",
        "",
    ]
    return "\n".join([*head, table(["variant", "ablate", "plain loop", "ablate − plain loop"], rows)])


def main() -> None:
    """Train both sides, and write `<out>/plain-loop-<study file>.json` and `.md`; what is finished is not run again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("-o", "--override", action="append", default=[], help="for both, as `ablate run -o`")
    parser.add_argument("--variant", action="append", help="default unet and noskip")
    parser.add_argument("--lr", default="3e-3", help="the one learning rate of the trial")
    parser.add_argument("--seeds", type=int, default=20, help="of each variant, a side")
    parser.add_argument("--work", type=Path, help="folder of the runs, where a stopped command goes on")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    arguments = parser.parse_args()
    variants, name = arguments.variant or ["unet", "noskip"], f"plain-loop-{arguments.study.stem}"
    folder = arguments.work or Path("results") / name
    overrides = [*arguments.override, "screen=null", "confirm=null", "claims=[]", f"grid.lr=[{arguments.lr}]"]
    overrides.append(f"seeds={arguments.seeds}")
    only = [word for variant in variants for word in ("--only", f"variant={variant}")]
    frame, decided = run(arguments.study, overrides, folder / "ablate", *only)
    study = read_study(arguments.study, overrides)
    settings = {name: value for name, value in study.data.items() if name != "name"}
    work = Work(study, load_dataset(study.data["name"], settings, base=study.base), study.trials())
    torch.set_num_threads(decided["threads"])
    done = folder / "plain.jsonl"
    scores = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
    rows = []
    for variant in variants:
        trial = next(trial for trial in work.trials if trial.variant == variant)
        mine = [score for name, _, score in scores if name == variant]
        for seed in range(FIRST_SEED + len(mine), FIRST_SEED + arguments.seeds):
            torch.manual_seed(seed)
            mine.append(plain_trial(build_model(trial, work), work.dataset, trial.train, seed))
            with done.open("a") as handle:
                handle.write(json.dumps([variant, seed, mine[-1]]) + "\n")
        ours = frame.loc[frame["variant"] == variant, "test_mean_iou"].tolist()
        rows.append(row(variant, ours, mine))
    size, train = work.dataset.size, study.trials()[0].train
    document = {
        "command": command_line("benchmarks.plain_loop"),
        "study": arguments.study.stem,
        "trial": f"{len(work.split('train'))} images at {size[0]}×{size[1]}, width {trial.model['width']}, "
        f"{train['epochs']} epochs of batches of {train['batch_size']}, lr {arguments.lr}",
        "machine": device_class("cpu"),
        "precision": decided["precision"],
        "engine": decided["engine"],
        "versions": versions("torch", "ablate-bench"),
        "seeds": arguments.seeds,
        "rows": rows,
    }
    write_both(arguments.out / name, document, render(document))


if __name__ == "__main__":
    main()
