"""`ablate run` and `ablate profile` from a study to an exit code: folder, lock, driver, closing words.

What takes long to import is imported when the fork server has begun to import it, too.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ablate.errors import AblateError, ResultsError, StudyError
from ablate.plugins import Plugins
from ablate.records.files import lock, write_atomic
from ablate.records.store import Results, TrialFolder, to_json
from ablate.run.events import Profiled
from ablate.run.executor import on_signals, start_fork_server
from ablate.run.status import SHARED, is_shared, lock_note, orphans
from ablate.study.reader import read_study
from ablate.study.study import Study
from ablate.study.trial import Trial
from ablate.wording import count_of

if TYPE_CHECKING:
    from ablate.run.cluster.jobs import Engine
    from ablate.run.setup import Ask


def start_early(path: Path, overrides: Sequence[str], folder: Callable[[str], Path]) -> None:
    """Start the fork server before plugins and components are imported, which takes as long as its own imports.

    Only where the file at `path` by itself says a study, and the results `folder` of its name has trials left; whatever
    is wrong is said when it is read in full. A pipe could not be read again.
    """
    with contextlib.suppress(AblateError, OSError):
        if path.is_file():
            study = read_study(path, overrides, check_components=False)
            results = Results(folder(study.name))
            plan = results.read_run().get("plan", ())
            if study.spec.run.executor == "local" and not (
                plan and all(results.trial(entry["name"]).record.exists() for entry in plan)
            ):
                start_fork_server()


def run_study(
    study: Study,
    path: Path,
    *,
    plugins: Plugins | None = None,
    wanted: Callable[[Trial], bool] = lambda _trial: True,
    retry: bool = False,
    profile: bool = True,
    allow_code_change: bool = False,
    origin: Path | None = None,
    detach: bool = False,
    mixed_devices: bool = False,
    join: bool = False,
) -> int:
    """Run what is missing, going on from the shorter trials in `origin` where the study extends another.

    With `detach` the jobs are given to the cluster and left to it; the same call without it gathers their records.
    With `join` other runs that join share the folder's trials with this one.
    0 every wanted trial has a result (or a job), 1 some failed or have none, 129 SIGHUP, 130 Ctrl-C, 143 SIGTERM.
    """
    if origin is not None and not Results(origin).read_run().get("plan"):
        cure = "run the study without --extend first"
        raise ResultsError("there are no shorter trials to go on from", file=str(origin), cure=cure)
    local = study.spec.run.executor == "local"
    if detach and study.spec.run.executor != "slurm":
        raise StudyError("--detach leaves jobs to a cluster", key="run.executor", cure="write executor: slurm")
    if join and not local:
        raise StudyError("--join is for machines without an engine", key="run.executor", cure="write executor: local")
    with on_signals(_leave), _left_as_found(path), _site(study, path) as (study, engine, ask):
        # The driver takes over the signals once trials run. On a cluster workers are forked by nobody here.
        done = [Results(path).trial(trial.name).record.exists() for trial in study.trials()]
        if local and (retry or study.spec.search or not all(done)):
            start_fork_server()
        from ablate.run.display import Display
        from ablate.run.driver import Driver
        from ablate.run.join import Share, check_locks
        from ablate.run.setup import prepare, quarantine_bad_records, writable

        display, plugins = Display(), plugins or Plugins()
        results = writable(path, study)
        if join:
            check_locks(results.path)
        share = Share(results) if join else None
        with contextlib.closing(share) if share else _held(results):
            with share.alone() if share else contextlib.nullcontext():
                guest = share is not None and not share.holds
                if guest:
                    display.say(f"joins the run of {results.holder().removesuffix(SHARED)}")
                for note in () if guest else quarantine_bad_records(results):
                    display.say(note)
                at_work = engine.name if engine is not None else "reading the data and trying the device"
                display.say(f"{study.name}: {at_work}")
                prepared = prepare(
                    study, results, plugins=plugins, allow_code_change=allow_code_change, ask=ask, joins=guest
                )
            for note in prepared.notes:
                display.say(note)
            begun = any(results.folders())
            if origin is not None and not begun and not any(one.last.exists() for one in Results(origin).folders()):
                display.say(
                    f"{origin} kept no last states (run: {{keep: last}} does): every trial starts from its first epoch"
                )
            decisions, devices = prepared.decisions, ", ".join(prepared.devices)
            display.say(
                f"{study.name}: {devices} ({decisions.device}), {count_of(decisions.workers, 'worker')} of "
                f"{count_of(decisions.threads, 'thread')}, {decisions.precision}, {decisions.engine}"
            )
            if study.spec.confirm:
                display.say("the first trials choose each variant's settings; then trials with fresh seeds decide")
            driver = Driver(
                prepared,
                display,
                plugins=plugins,
                wanted=wanted,
                retry=retry,
                profile=profile,
                origin=origin,
                engine=engine,
                detach=detach,
                mixed_devices=mixed_devices,
                share=share,
            )
            outcome = driver.run()
            left = orphans(results, driver.plan)
        if driver.reused:
            display.say(_said_of_reused(driver.reused))
        for note in outcome.notes:
            display.say(note)
        if left:
            from ablate.data.dataset import first_names

            gone = f"{count_of(len(left), 'trial')} here {'is' if len(left) == 1 else 'are'} no longer in the study"
            display.say(f"{gone} (kept, not reported): {first_names(left)}")
        if outcome.exit_code > 128:
            display.say("stopped; the same command goes on where this one left")
        else:
            given = [
                word for file in plugins.files if isinstance(file, Path) for word in ("--plugin", os.path.relpath(file))
            ]
            report = shlex.join(["ablate", "report", str(path), *given])
            display.say(f"results in {path}; `{report}` makes tables, figures and the page")
        return outcome.exit_code


def _said_of_reused(folders: Sequence[TrialFolder]) -> str:
    """Return what is said of trials that lie in these folders, taken over from others."""
    # One that diverged has neither counts nor predictions.
    bare = sum(folder.images.exists() and not folder.predictions.exists() for folder in folders)
    lack = f"; {bare} of them without predictions" if bare else ""
    return f"{count_of(len(folders), 'trial')} taken over from other folders (run.reuse){lack}"


@contextlib.contextmanager
def _site(study: Study, path: Path) -> Iterator[tuple[Study, Engine | None, Ask | None]]:
    """Give the study as it is run: here, or on the cluster that comes with it and with the way to ask a node of it.

    Before anything is made: where the cluster is not there, no folder is left.
    """
    if study.spec.run.executor == "local":
        yield study, None, None
        return
    from ablate.run.cluster.jobs import ask_node, at_site, engine_for

    study = at_site(study)
    with contextlib.closing(engine_for(study, Results(path))) as engine:
        yield study, engine, partial(ask_node, engine, path.absolute() / "jobs")


@contextlib.contextmanager
def _held(results: Results) -> Iterator[None]:
    """Hold the folder's lock; raises `ResultsError` where another run has it."""
    shared = is_shared(results)
    with contextlib.nullcontext() if shared else lock(results.lock, lock_note()) as held:
        if not held:
            holder = results.holder() or "another process"
            cure = "wait for it" + (", or join it with --join" if shared else "")
            raise ResultsError(f"another run holds this folder ({holder})", file=str(results.path), cure=cure)
        yield


@contextlib.contextmanager
def _left_as_found(path: Path) -> Iterator[None]:
    """Take away the folder that a run made which was then refused, as for data that cannot be used."""
    existed = path.exists()
    try:
        yield
    except AblateError:
        from ablate.run.setup import is_empty

        if existed or not path.is_dir():
            raise
        with lock(Results(path).lock) as free:  # another run may have begun here meanwhile
            unused = free and is_empty(path)
        if unused:
            shutil.rmtree(path)
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # `results`, where it was made for this and is empty
        raise


def _leave(number: int) -> NoReturn:
    """End before the first trial: nothing is lost."""
    raise SystemExit(128 + number)


def profile_study(study: Study, path: Path, *, plugins: Plugins, seconds: float) -> int:
    """Measure each variant of a study alone on its device, a node's where a cluster runs it; writes `profile.json`.

    Returns 0, or 1 where it could not.
    """
    with on_signals(_leave), _site(study, path) as (study, engine, ask):
        if engine is None:
            start_fork_server()
        from ablate.run.display import Display
        from ablate.run.driver import Driver
        from ablate.run.setup import prepare, writable

        display = Display()
        results = writable(path, study)
        with _held(results):
            prepared = prepare(study, results, plugins=plugins, allow_code_change=False, ask=ask)
            executor = Driver(prepared, display, plugins=plugins, engine=engine).executor()
            where = "" if engine is None else f" on a node of {engine.name}"
            count = count_of(len(study.variants), "variant")
            display.say(f"profiling {count}, each alone{where}, for about {seconds:.0f} s")
            try:
                found = executor.profile(seconds)
            finally:
                executor.close()
            if isinstance(found, Profiled):
                write_atomic(results.profile, to_json(found.profile))
                display.say(f"wrote {results.profile}")
                return 0
        display.say(f"no profile: {found.reason}")
        return 1
