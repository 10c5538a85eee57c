"""`run.json` and the other files that say what a results folder was made with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ablate.data.dataset import IGNORE, Dataset, as_bytes
from ablate.errors import ResultsError
from ablate.plugins import PluginFile
from ablate.records.files import write_atomic
from ablate.records.pictures import pack, pack_images
from ablate.records.record import Resolution
from ablate.records.store import Results, read_json, to_json
from ablate.study.spec import SearchSpec
from ablate.study.study import Study
from ablate.study.trial import Trial
from ablate.train.decisions import Decisions
from ablate.wording import count_of

PACKAGES = ("torch", "numpy", "optuna", "pandas", "scipy", "matplotlib", "seaborn", "wandb", "pydantic", "pillow")


def versions() -> dict[str, str]:
    """Versions of Python, ablate and the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in ("ablate-bench", *PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, Any]:
    """Commit and cleanliness of the git checkout around `folder`; empty outside of one."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def shorter_epochs(study: Study) -> dict[str, int]:
    """The epochs of each variant in the study that `study` extends; empty where it extends none."""
    shorter = study.origin
    if shorter is None:
        return {}
    return {name: shorter.train_settings(variant, {})["epochs"] for name, variant in shorter.variants.items()}


def machine() -> dict[str, Any]:
    """The machine, without its name."""
    import torch

    from ablate.train.hardware import cores, device_class

    found: dict[str, Any] = {"cpu": device_class("cpu"), "cores": cores(), "system": platform.system()}
    if torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        found["cuda"], found["driver"] = torch.version.cuda, gpu_driver()
    return found


def gpu_driver() -> str | None:
    """Version of the GPUs' driver, or None where it cannot be found out."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0].strip() or None


def command_line() -> str:
    """The command as typed, without the path of the program and without anything that looks like a secret."""
    import shlex

    return shlex.join(["ablate", *sys.argv[1:]]) if sys.argv[1:] else "ablate (from Python)"


def check_data(results: Results, dataset: Dataset) -> None:
    """Refuse a results folder whose trials saw other data; the changed files are counted and named."""
    known = results.read_run().get("data", {})
    if not known or known["fingerprint"] == dataset.fingerprint:
        return
    before: dict[str, str] = (read_json(results.path / "data.json") or {}).get("files", {})
    now = dict(dataset.files)
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    what = (
        f"{len(changed)} files differ ({', '.join(changed[:3])}{', …' if len(changed) > 3 else ''})"
        if changed
        else ("its settings or version differ")
    )
    raise ResultsError(
        f"the data changed since the trials here were run: {what}",
        file=str(results.path),
        cure="restore the data, or run into another folder with --out",
    )


def resolution_of(study: Study) -> Resolution:
    """Where a study scores the test split: at the size "trained" at, or at the masks' own, "native"."""
    return "native" if study.spec.measure.native else "trained"


def check_resolution(results: Results, study: Study) -> None:
    """Refuse a results folder whose trials were scored at another size than the study says: no table may mix them."""
    known = results.read_run().get("data", {}).get("resolution", "trained")
    wanted = resolution_of(study)
    if known == wanted:
        return
    scored = sum(folder.record.exists() for folder in results.folders())
    if scored:
        sizes = {"trained": "data.size", "native": "the masks' own size"}
        said = f"{count_of(scored, 'trial')} here {'was' if scored == 1 else 'were'}"
        raise ResultsError(
            f"{said} scored at {sizes[known]}, measure.native asks for {sizes[wanted]}",
            file=str(results.path),
            cure=f"write measure.native: {str(known == 'native').lower()}, or run into another folder with --out",
        )


def check_plugins(results: Results, plugins: dict[str, str], allow_change: bool) -> bool:
    """Refuse changed plugin code, naming the file; with `allow_change` True says that it changed."""
    for known in results.read_run().get("plugins", []):
        now = plugins.get(known["file"])
        if now is not None and now != known["sha256"]:
            if allow_change:
                return True
            raise ResultsError(
                f"the plugin '{known['file']}' changed since trials here were run",
                file=str(results.path),
                cure="undo the change, run into another folder with --out, or pass --allow-code-change",
            )
    return False


def plugin_digests(loaded: Sequence[PluginFile]) -> dict[str, str]:
    """File name -> sha256, of the plugins and the modules beside them that they import."""
    return {Path(plugin.file).name: plugin.sha256 for plugin in loaded}


def write_run(
    results: Results,
    study: Study,
    plan: Sequence[Trial],
    dataset: Dataset,
    decisions: Decisions,
    variants: dict[str, Any],
    plugins: dict[str, str],
) -> None:
    """Write `run.json` and `data.json`."""
    document = {
        "schema_version": 1,
        "study": study.spec.study,
        "command": _reproducing(results),
        "versions": versions(),
        "device": machine(),
        "git": git_state(Path(os.curdir)),
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.classes),
            "size": list(dataset.size),
            "resolution": resolution_of(study),
            "splits": {name: len(split) for name, split in dataset.splits.items()},
            "absent": absent_classes(dataset),
        },
        "plugins": [{"file": name, "sha256": digest} for name, digest in sorted(plugins.items())],
        "decisions": decisions.to_json(),
        "variants": variants,
        **({"extended_from": shorter_epochs(study)} if study.origin is not None else {}),
        "plan": [plan_entry(trial) for trial in plan],
    }
    if study.spec.search is not None:
        document["search"] = search_identity(study.spec.search)
    write_atomic(results.run, to_json(document))
    write_atomic(results.path / "data.json", to_json({"files": dict(dataset.files)}))


def _reproducing(results: Results) -> str:
    """The command that made the trials: a profile that is added to them keeps that of their run."""
    typed = command_line()
    known = results.read_run().get("command")
    return str(known) if known and typed.startswith("ablate profile") else typed


def search_identity(search: SearchSpec) -> dict[str, Any]:
    """What decides the proposals of a search: all of it but its budget."""
    return search.model_dump(mode="json", exclude={"trials"})


def plan_entry(trial: Trial) -> dict[str, Any]:
    """A trial as `run.json` lists it."""
    return {
        "name": trial.name,
        "key": trial.key,
        "variant": trial.variant,
        "settings": trial.settings,
        "seed": trial.seed,
        "role": trial.role,
    }


def absent_classes(dataset: Dataset) -> dict[str, list[str]]:
    """Classes without a pixel in a split, by split."""
    found = {}
    for name, split in dataset.splits.items():
        there = np.bincount(np.asarray(split.masks).reshape(-1), minlength=256)[: dataset.num_classes] > 0
        missing = [label for label, present in zip(dataset.classes, there, strict=True) if not present]
        if missing:
            found[name] = missing
    return found


def write_test_split(results: Results, study: Study, dataset: Dataset) -> None:
    """Write the test targets and pictures once, so that a report needs no data set.

    Targets have the size that is scored, pictures the size that is trained at.
    """
    index, resolution = results.test / "index.json", resolution_of(study)
    if index.exists() and (read_json(index) or {}).get("resolution", "trained") == resolution:
        return
    results.test.mkdir(parents=True, exist_ok=True)
    test, val = dataset.splits["test"], dataset.splits["val"]
    masks = dataset.native_test_masks() if resolution == "native" else test.masks
    write_atomic(results.test / "targets.zip", pack(np.asarray(mask) for mask in masks))
    write_atomic(results.test / "images.zip", pack_images(as_bytes(image) for image in test.images))
    write_atomic(
        index,
        to_json(
            {
                "classes": list(dataset.classes),
                "palette": [list(colour) for colour in dataset.palette],
                "ignore_index": IGNORE,
                "size": list(dataset.size),
                "resolution": resolution,
                "names": list(test.names),
                "groups": list(test.groups) if test.groups else None,
                "val_names": list(val.names),
                "val_groups": list(val.groups) if val.groups else None,
                "fingerprint": dataset.fingerprint,
            }
        ),
    )
