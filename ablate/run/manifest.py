"""`run.json` and the other files that say what a results folder was made with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ablate.data.dataset import IGNORE, Dataset, as_bytes
from ablate.errors import DataError, ResultsError, redacted, visible
from ablate.plugins import PluginFile
from ablate.records.files import lock, make_folder, read_file, write_atomic
from ablate.records.images import pack, pack_images
from ablate.records.record import SCHEMA, Resolution
from ablate.records.store import Results, read_json, to_json
from ablate.study.reader import dump_study
from ablate.study.study import Study
from ablate.study.trial import Trial
from ablate.train.engine.config import Decisions
from ablate.wording import count_of

# How long another process may take to write `run.json`.
MANIFEST_SECONDS = 60.0
PACKAGES = ("torch", "numpy", "optuna", "pandas", "scipy", "matplotlib", "seaborn", "wandb", "pydantic", "pillow")


def versions() -> dict[str, str]:
    """Return the versions of Python, ablate and the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in ("ablate-bench", *PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, str]:
    """Return the commit of the git checkout around `folder`; empty outside of one.

    Read from the files of `.git`: the program would run what the folder's own configuration names (filters, hooks,
    a file-system monitor). Whether files were changed since is therefore not said.
    """
    try:
        for parent in (folder.resolve(), *folder.resolve().parents):
            if (parent / ".git").exists():
                return _head(parent / ".git")
    except (OSError, ValueError, ResultsError):
        pass
    return {}


def _head(git: Path) -> dict[str, str]:
    if git.is_file():  # a worktree, or a submodule: "gitdir: <path>"
        git = git.parent / _line(git).removeprefix("gitdir:").strip()
    common = git / _line(git / "commondir") if (git / "commondir").is_file() else git
    head = _line(git / "HEAD")
    if head.startswith("ref: refs/"):
        name = head.removeprefix("ref: ")
        loose = common / name
        packed = read_file(common / "packed-refs").decode() if (common / "packed-refs").is_file() else ""
        named = (line.split(" ")[0] for line in packed.splitlines() if line.endswith(f" {name}"))
        head = _line(loose) if loose.is_file() else next(named, "")
    return {"commit": head} if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", head) else {}


def _line(path: Path) -> str:
    return read_file(path)[:4096].decode().partition("\n")[0].strip()


def machine() -> dict[str, Any]:
    """Return the machine, without its name."""
    import torch

    from ablate.train.device import cores, device_class

    found: dict[str, Any] = {"cpu": device_class("cpu"), "cores": cores(), "system": platform.system()}
    if torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        found["cuda"], found["driver"] = torch.version.cuda, gpu_driver()
    return found


def gpu_driver() -> str | None:
    """Return the version of the GPUs' driver, or None where it cannot be found out."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0].strip() or None


def command_line() -> str:
    """Return the command as typed, without the path of the program and without anything that looks like a secret."""
    import shlex

    words = [visible(redacted(word)) for word in sys.argv[1:]]
    return shlex.join(["ablate", *words]) if words else "ablate (from Python)"


def check_study(results: Results, study: Study) -> None:
    """Refuse the results folder of another study: its trials would be orphans here, and its tables overwritten."""
    known = results.read_run().get("study")
    if known and known != study.name:
        raise ResultsError(
            f"the results of the study '{known}', not of '{study.name}'",
            file=str(results.path),
            cure="choose another folder with --out",
        )


def check_same(results: Results, study: Study, plan: Sequence[Trial]) -> None:
    """Refuse to join the run of another study file: runs that share a folder have to plan the same trials."""
    free = ("run", "track", "claims", "data")  # other data would be other trials
    known, own = (
        {key: value for key, value in yaml.safe_load(text).items() if key not in free}
        for text in (read_file(results.study), dump_study(study))
    )
    differ = sorted(key for key in known.keys() | own.keys() if known.get(key) != own.get(key))
    if not differ and not {trial.key for trial in plan} <= {entry["key"] for entry in results.read_run()["plan"]}:
        differ = ["data"]
    if differ:
        said = f"{', '.join(differ)}: not as in the run that holds this folder"
        raise ResultsError(said, file=str(results.path), cure="join it with the same study file and -o overrides")


def check_data(results: Results, dataset: Dataset) -> None:
    """Refuse a results folder whose trials saw other data; the changed files are counted and named.

    Raises `DataError` for a file whose name no JSON can hold.
    """
    for name in [*dataset.files, *(name for split in dataset.splits.values() for name in split.names)]:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError("its name is not UTF-8", file=name, cure="rename the file") from None
    known = results.read_run().get("data", {})
    if not known or known["fingerprint"] == dataset.fingerprint:
        return
    before: dict[str, str] = (read_json(results.path / "data.json") or {}).get("files", {})
    now = dict(dataset.files)
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    what = (
        f"{len(changed)} files differ ({', '.join(changed[:3])}{', …' if len(changed) > 3 else ''})"
        if changed
        else "its settings or version differ"
    )
    raise ResultsError(
        f"the data changed since the trials here were run: {what}",
        file=str(results.path),
        cure="give the same data and -o overrides, or another folder with --out",
    )


def resolution_of(study: Study) -> Resolution:
    """Return where a study scores the test split: at the size "trained" at, or at the masks' own, "native"."""
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


def check_plugins(results: Results, plugins: Mapping[str, str], allow_change: bool) -> bool:
    """Refuse changed plugin code, naming the file; with `allow_change` return True where it changed.

    The whole set is compared by content: a plugin that was renamed and edited is a known one that is gone and a new
    one that came. A known one that is only not loaded now, or one that only came, changes no trial that stands.
    """
    known = {item["file"]: item["sha256"] for item in results.read_run().get("plugins", [])}
    gone = sorted(file for file, digest in known.items() if digest not in plugins.values())
    if not gone or set(plugins.values()) <= set(known.values()):
        return False
    if allow_change:
        return True
    changed = next((file for file in gone if file in plugins), None)
    what = "changed" if changed else "was renamed and changed, or replaced,"
    raise ResultsError(
        f"the plugin '{changed or gone[0]}' {what} since trials here were run",
        file=str(results.path),
        cure="undo the change, run into another folder with --out, or pass --allow-code-change",
    )


def plugin_digests(loaded: Sequence[PluginFile]) -> dict[str, str]:
    """Return the SHA-256 of the plugins, and of the modules beside them that they import, by the file's name.

    Files of one name are told apart by as many of the folders above them as it takes.
    """
    paths = {Path(plugin.file): plugin.sha256 for plugin in loaded}
    found = {}
    for path, digest in paths.items():
        length = 1
        while length < len(path.parts) and sum(other.parts[-length:] == path.parts[-length:] for other in paths) > 1:
            length += 1
        found[visible("/".join(path.parts[-length:]))] = digest
    return found


def write_run(
    results: Results,
    study: Study,
    plan: Sequence[Trial],
    dataset: Dataset,
    decisions: Decisions,
    variants: dict[str, Any],
    plugins: dict[str, str],
    machine: dict[str, Any],
) -> None:
    """Write `run.json` and `data.json`; the folder's `id` is made the first time, and kept."""
    before, typed = results.read_run(), command_line()
    profiled = typed.startswith("ablate profile") and {"command", "plan"} <= before.keys()
    # A plugin that is only not loaded now stays known, or its next edit would pass unseen.
    known = {item["file"]: item["sha256"] for item in before.get("plugins", []) if item["file"] not in plugins}
    document = {
        "schema_version": SCHEMA,
        "study": study.spec.study,
        "id": before.get("id") or secrets.token_hex(8),
        "command": str(before["command"]) if profiled else typed,
        "versions": versions(),
        "device": machine,
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
        "plugins": [{"file": name, "sha256": digest} for name, digest in sorted((known | plugins).items())],
        "decisions": decisions.to_json(),
        "variants": variants,
        # A profile that is added to trials keeps the phases that their run entered later.
        "plan": before["plan"] if profiled else [plan_entry(trial) for trial in plan],
    }
    if study.spec.search is not None:
        document["search"] = study.spec.search.identity()
    if (shorter := study.origin) is not None:
        epochs = {name: shorter.train_settings(item, {})["epochs"] for name, item in shorter.variants.items()}
        document["extended_from"] = epochs
    write_atomic(results.run, to_json(document))
    write_atomic(results.path / "data.json", to_json({"files": dict(dataset.files)}))


def plan_entry(trial: Trial) -> dict[str, Any]:
    """Return a trial as `run.json` lists it."""
    return {name: getattr(trial, name) for name in ("name", "key", "variant", "settings", "seed", "role")}


def enter_plan(results: Results, trials: Mapping[str, Trial]) -> None:
    """Enter trials, by the names of the folders where they lie, in the manifest's plan; nothing leaves it."""
    with lock(results.path / ".manifest", timeout=MANIFEST_SECONDS) as held:  # runs that share a folder do so, too
        if not held:
            raise ResultsError("another process writes it", file=str(results.run), cure="run the same command again")
        run = results.read_run()
        plan = {entry["key"]: entry for entry in run["plan"]}
        for name, trial in trials.items():
            plan[trial.key] = {**plan_entry(trial), "name": name}
        if list(plan.values()) != run["plan"]:
            write_atomic(results.run, to_json({**run, "plan": list(plan.values())}))


def absent_classes(dataset: Dataset) -> dict[str, list[str]]:
    """Return the classes without a pixel in a split, by split."""
    found = {}
    for name in dataset.splits:
        there = dataset.pixels_of_classes(name)[:-1] > 0
        missing = [label for label, present in zip(dataset.classes, there, strict=True) if not present]
        if missing:
            found[name] = missing
    return found


def write_test_split(results: Results, study: Study, dataset: Dataset) -> None:
    """Write the test targets and images once, so that a report needs no data set.

    Targets have the size that is scored, images the size that is trained at.
    """
    index, resolution = results.test / "index.json", resolution_of(study)
    if index.exists() and (read_json(index) or {}).get("resolution", "trained") == resolution:
        return
    make_folder(results.test)
    test, val = dataset.splits["test"], dataset.splits["val"]
    masks = dataset.native_test_masks() if resolution == "native" else test.masks
    # Pixels that bear several classes are more in sum than there are: their number is said beside.
    labelled = sum(int((np.asarray(mask) != IGNORE).sum()) for mask in masks)
    several = {"multilabel": True, "labelled_pixels": labelled} if dataset.multilabel else {}
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
                **several,
            }
        ),
    )
