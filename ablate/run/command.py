"""`ablate run` and `ablate profile` from a study to an exit code: folder, lock, driver, closing words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ablate.errors import ResultsError
from ablate.records.files import lock, write_atomic
from ablate.records.store import Results, to_json
from ablate.run.driver import Driver, orphans
from ablate.run.executors.local import LocalExecutor
from ablate.run.executors.nursery import Nursery
from ablate.run.progress import Display
from ablate.run.setup import Plugins, lock_note, prepare, quarantine_bad_records, writable
from ablate.study.study import Study
from ablate.study.trial import Trial
from ablate.wording import count_of


def run_study(
    study: Study,
    path: Path,
    *,
    plugins: Plugins | None = None,
    wanted: Callable[[Trial], bool] = lambda trial: True,
    retry: bool = False,
    profile: bool = True,
    allow_code_change: bool = False,
    origin: Path | None = None,
    nursery: Nursery | None = None,
) -> int:
    """Run what is missing, going on from the shorter trials in `origin` where the study extends another.

    0 all done, 1 some trials failed or the study paused, 130 Ctrl-C, 143 SIGTERM.
    """
    if origin is not None and not Results(origin).read_run().get("plan"):
        cure = "run the study without --extend first"
        raise ResultsError("there are no shorter trials to go on from", file=str(origin), cure=cure)
    display = Display()
    plugins = plugins or Plugins()
    results = writable(path)
    with lock(results.lock, lock_note()) as held:
        if not held:
            holder = results.lock.read_text(encoding="utf-8") or "another process"
            raise ResultsError(f"another run holds this folder ({holder})", file=str(path), cure="wait for it")
        for note in quarantine_bad_records(results):
            display.say(note)
        prepared = prepare(study, results, plugins=plugins, allow_code_change=allow_code_change)
        for note in prepared.notes:
            display.say(note)
        decisions = prepared.decisions
        display.say(
            f"{study.name}: {', '.join(prepared.devices)} ({decisions.device}), {count_of(decisions.lanes, 'lane')} of "
            f"{count_of(decisions.threads, 'thread')}, {decisions.precision}, {decisions.engine}"
        )
        driver = Driver(
            prepared,
            display,
            plugins=plugins,
            wanted=wanted,
            retry=retry,
            profile=profile,
            origin=origin,
            nursery=nursery,
        )
        outcome = driver.run()
        left = orphans(results, driver.plan)
    for note in outcome.notes:
        display.say(note)
    if left:
        gone = f"{count_of(len(left), 'trial')} here {'is' if len(left) == 1 else 'are'} no longer in the study"
        display.say(f"{gone} (kept, not reported): {', '.join(left[:3])}")
    display.say(closing_line(path, outcome.exit_code))
    return outcome.exit_code


def closing_line(path: Path, code: int) -> str:
    """What to do next."""
    if code in (130, 143):
        return "stopped; the same command goes on where this one left"
    return f"results in {path}; `ablate report {path}` makes tables, figures and the page"


def profile_study(study: Study, path: Path, *, plugins: Plugins, seconds: float) -> int:
    """Measure each variant of a study alone on its device; writes `profile.json`. 0, or 1 where it could not."""
    display = Display()
    results = writable(path)
    with lock(results.lock, lock_note()) as held:
        if not held:
            raise ResultsError("a run holds this folder", file=str(path), cure="profile when it has ended")
        prepared = prepare(study, results, plugins=plugins, allow_code_change=False)
        executor = LocalExecutor(
            path,
            base=study.base,
            devices=prepared.devices[:1],
            lanes=1,
            threads=prepared.decisions.threads,
            plugins=plugins.files,
        )
        display.say(f"profiling {count_of(len(study.variants), 'variant')}, each alone, for about {seconds:.0f} s")
        try:
            found = executor.profile(seconds)
        finally:
            executor.close()
        if "profile" in found:
            write_atomic(results.profile, to_json(found["profile"]))
            display.say(f"wrote {results.profile}")
            return 0
    display.say(f"no profile: {found['reason']}")
    return 1
