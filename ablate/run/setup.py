"""All that has to stand before the first trial: the folder, its lock, data, decisions, the manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ablate.data.dataset import Dataset
from ablate.errors import ResultsError, StudyError
from ablate.plugins import Plugins
from ablate.records.files import make_folder, refuse_links, sweep, write_atomic, writing
from ablate.records.store import Results, quarantine, read_record, to_json
from ablate.run import manifest
from ablate.run.plan.describe import Shape, describe_variants, idle_poolings
from ablate.run.plan.dry import dry_pass, load_data, own_data
from ablate.run.tracker import MLflowTracker, TensorBoardTracker, Tracker, refuse_missing
from ablate.run.wandb import WandbTracker
from ablate.study.reader import dump_study
from ablate.study.spec import StudySpec
from ablate.study.study import Study
from ablate.study.trial import Trial, canonical
from ablate.train.device import device_names
from ablate.train.engine.config import FUSED, Decisions, check_fused, decide
from ablate.wording import short_path

# Has a node of a cluster answer, and returns its answer.
Ask = Callable[[Callable[[], Any]], Any]


def decided(spec: StudySpec, **work: Any) -> dict[str, Any]:
    """Return the execution config of a study and the machine as `run.json` keeps them, decided where this is called."""
    return {"decisions": decide(spec, **work).to_json(), "machine": manifest.machine()}


@dataclass
class Prepared:
    """A results folder ready for trials."""

    study: Study
    results: Results
    dataset: Dataset
    plan: list[Trial]
    devices: list[str]
    decisions: Decisions
    # That of each data set by the canonical JSON of its settings: what every worker has to find.
    fingerprints: dict[str, str]
    # What every record of this run says of where it comes from.
    provenance: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def writable(path: Path, study: Study | None = None) -> Results:
    """Return the results folder at `path`, made where it is not there.

    Raises `ResultsError` before anything is written where it cannot be written, holds something else than results
    (of `study`, where given), or has a symbolic link in it. Its marker is `run.json`; what a run that ended before
    its first trial leaves is taken for an empty folder.
    """
    results = Results(path)
    with writing(path, cure := "choose another folder with --out"):
        if path.exists() and not (path.is_dir() and (results.is_marked() or is_empty(path))):
            what = "neither empty nor a results folder of ablate" if path.is_dir() else "not a folder"
            raise ResultsError(what, file=str(path), cure=cure)
        if study is not None:
            manifest.check_study(results, study)
        refuse_links(path)
        results.refuse_packed()
        make_folder(results.trials)
        probe = path / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)
    return results


def is_empty(path: Path) -> bool:
    """Return whether nothing is in a folder but what a run that ended before its first trial leaves."""
    return all(
        item.name in (".lock", ".writable", ".joining")
        or item.name.startswith(".probe-")
        or (item.name == "trials" and item.is_dir() and not any(item.iterdir()))
        for item in path.iterdir()
    )


def prepare(
    study: Study,
    results: Results,
    *,
    plugins: Plugins,
    allow_code_change: bool,
    dataset: Dataset | None = None,
    ask: Ask | None = None,
    joins: bool = False,
) -> Prepared:
    """Load the data, take or read the execution config, check what changed, write the manifest.

    To be called under the folder's lock. `ask` has a node of a cluster answer what only it knows: how it computes.
    With `joins` another run holds the folder: it is only held against this study, and nothing is written.
    """
    manifest.check_study(results, study)
    refuse_missing(study)
    with study.located():
        for path in (short_path(study.base / folder) for folder in study.spec.run.reuse):
            if not Results(path).is_marked():
                cure = "name a results folder, or take it out"
                raise StudyError(f"there are no results to reuse in {path}", key="run.reuse", cure=cure)
    for folder in () if joins else (results.path, results.test):
        sweep(folder)
    dataset = dataset or load_data(study)
    manifest.check_data(results, dataset)
    own = own_data(study, dataset)
    manifest.check_resolution(results, study)
    digests = manifest.plugin_digests(plugins.loaded)
    changed = manifest.check_plugins(results, digests, allow_code_change)
    plan = study.trials()
    if study.spec.search is not None:
        from ablate.run.search import opening

        plan = opening(study, results)
    with study.located():
        if ask is None:
            devices = device_names(study.spec.run.devices)
        else:
            devices = ["cuda:0" if study.spec.run.cluster.gpus else "cpu"]
    variants = _described(study, results, digests)
    shapes = {name: Shape.of(data) for name, data in own.items()}
    if not variants:
        # What was described here before went through its dry pass then.
        if not all(results.trial(trial.name).record.exists() for trial in plan):
            dry_pass(study, dataset, devices[0] if ask is None else "cpu", own)
        described = describe_variants(study, Shape.of(dataset), shapes)
        variants = {name: item.to_json() for name, item in described.items()}
    if joins:
        manifest.check_same(results, study, plan)
    decisions, machine, notes = _decisions(study, results, plan, devices[0], variants, dataset, ask, joins=joins)
    if not joins:
        manifest.write_run(results, study, plan, dataset, decisions, variants, digests, machine)
        write_atomic(results.resolved, dump_study(study).encode())
        manifest.write_test_split(results, study, dataset)
    fingerprints = {canonical(study.data_of(name)): data.fingerprint for name, data in own.items()}
    fingerprints[canonical(study.data)] = dataset.fingerprint
    git = manifest.git_state(Path(os.curdir))
    provenance: dict[str, Any] = {"versions": manifest.versions(), "git": git, "machine": machine}
    provenance |= {"plugin_code_changed": True} if changed else {}
    return Prepared(
        study,
        results,
        dataset,
        plan,
        devices,
        decisions,
        fingerprints,
        provenance,
        [*notes, *idle_poolings(study, shapes)],
    )


def _described(study: Study, results: Results, plugins: Mapping[str, str]) -> dict[str, Any]:
    """Return the variants as `run.json` describes them where all that they follow from is as it was; else nothing.

    Building every network to count its operations would take longer than all else before a resumed run's first trial.
    """
    run = results.read_run()
    known = run.get("variants", {})
    if run.get("versions") != manifest.versions() or {p["file"]: p["sha256"] for p in run["plugins"]} != plugins:
        return {}
    said = {
        name: {"model": item.model, "differs": study.differences(name), "control": item.control}
        for name, item in study.variants.items()
    }
    wanted = json.loads(to_json(said))
    there = {name: {part: item.get(part) for part in ("model", "differs", "control")} for name, item in known.items()}
    return {name: known[name] for name in wanted} if there == wanted else {}


def _decisions(
    study: Study,
    results: Results,
    plan: list[Trial],
    device: str,
    variants: dict[str, Any],
    dataset: Dataset,
    ask: Ask | None,
    *,
    joins: bool,
) -> tuple[Decisions, dict[str, Any], list[str]]:
    """Return the decisions of `run.json` where trials on this class of device stand, else new ones; their machine."""
    # A search begins with its first round, and has its budget of them before it.
    rounds = study.spec.search.trials if study.spec.search is not None else 1
    images = rounds * len(dataset.splits["train"])
    train_flops = sum(3 * variants[trial.variant]["forward_flops"] * images * trial.train["epochs"] for trial in plan)
    run = results.read_run()
    stand = joins or ("decisions" in run and any(any(folder.path.iterdir()) for folder in results.folders()))
    if ask is not None and stand:  # every job compares the class of its device with it
        return Decisions.from_json(run["decisions"]), run["device"], []
    work = {"trials": len(plan), "device": device, "train_flops": train_flops, "variants": len(study.variants)}
    question = partial(decided, study.spec, **work)
    answer = ask(question) if ask is not None else question()
    fresh, machine = Decisions.from_json(answer["decisions"]), answer["machine"]
    if not stand:
        return fresh, machine, []
    kept = Decisions.from_json(run["decisions"])
    if kept.device != fresh.device:
        raise ResultsError(
            f"trials here were run on {kept.device}, this machine has {fresh.device}",
            file=str(results.path),
            cure="run into another folder with --out: numbers of two kinds of device do not belong in one table",
        )
    if kept.engine == FUSED:
        # Asked for before the first trial begins: else one after another would fail.
        check_fused(
            device.startswith("cuda"),
            cure="the trials that stand have them: install a C compiler, or run into another folder with --out",
        )
    numbers = ("precision", "engine", "threads", "channels_last", "deterministic")
    differ = [name for name in numbers if getattr(kept, name) != getattr(fresh, name)]
    notes = [f"{name} stays {getattr(kept, name)}, as for the trials that stand" for name in differ]
    # Workers do not change bits: they may follow the machine.
    document = kept.to_json()
    document["workers"] = fresh.to_json()["workers"]
    return Decisions.from_json(document), machine, notes


def quarantine_bad_records(results: Results) -> list[str]:
    """Move unreadable records aside, so that their trials run again; return what is to be said of each."""
    _, bad = results.records()
    notes = []
    for path, reason in bad.items():
        if "newer version" in reason:
            raise ResultsError(reason)
        aside = quarantine(path, reason)
        notes.append(f"{reason}; moved to {aside.name}, the trial runs again")
    return notes


def reusable(study: Study, fingerprint: str) -> dict[str, Path]:
    """Return the finished trials, by key, of the folders that the study may take them over from.

    Of those with the same data, scored at the same resolution.
    """
    found: dict[str, Path] = {}
    for path in (short_path(study.base / folder) for folder in study.spec.run.reuse):
        other = Results(path)
        data = other.read_run().get("data") or {}
        if data.get("fingerprint") != fingerprint or data.get("resolution", "trained") != manifest.resolution_of(study):
            continue
        for folder in other.folders():
            record = read_record(folder.record)
            if record is not None and record.status in ("complete", "diverged"):
                found[record.key] = folder.path
    return found


def trackers(study: Study, results: Results) -> list[Tracker]:
    """Return the trackers of a run: W&B unless it is disabled, and what else the study asks for."""
    wanted = {TensorBoardTracker: study.spec.track.tensorboard, MLflowTracker: study.spec.track.mlflow}
    return [WandbTracker(study, results), *(kind(study, results) for kind, asked in wanted.items() if asked)]
