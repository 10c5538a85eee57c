"""`python -m tests.soak.soak`: a study of many tiny trials under every kind of disturbance, and a report of it.

The study is run twice: undisturbed, and while its processes are killed, suspended and robbed of their disk. What the
second run lost, did twice or did otherwise is the report, as JSON and as Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.soak.command import Command, tiny_study
from tests.soak.compare import Comparison, compare
from tests.soak.disturb import Disturbance, Told

# How often each disturbance comes: 55 of them end a process.
EVERYTHING = {
    "kill worker": 22,
    "terminate worker": 6,
    "kill server": 6,
    "kill driver": 8,
    "terminate driver": 4,
    "interrupt driver": 2,
    "kill everything": 4,
    "terminate everything": 3,
    "suspend worker": 5,
    "suspend server": 3,
    "suspend driver": 3,
    "second runner": 3,
    "two runners": 3,
    "full disk": 1,
}
# So many epochs make trials of about half a second: a study of minutes on two cores, which is ended 55 times.
EPOCHS = 40
# What fits into a minute: eight of them end a process.
A_FEW = {
    "kill worker": 3,
    "terminate worker": 1,
    "kill server": 1,
    "kill driver": 1,
    "terminate driver": 1,
    "kill everything": 1,
    "suspend worker": 1,
    "second runner": 1,
}


def schedule(times: Mapping[str, int], trials: int, seed: int) -> list[tuple[int, str]]:
    """Return every disturbance of `times` with the number of records after which it comes, drawn from `seed`."""
    drawn = random.Random(seed)
    return [(drawn.randrange(1, trials * 19 // 20), what) for what, count in times.items() for _ in range(count)]


@contextlib.contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Path | None]:
    """Mount a disk of its own at `folder` while the block runs; yield None where that is not allowed."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


@dataclasses.dataclass
class Soaked:
    """A soak that has ended."""

    trials: int
    told: Told
    comparison: Comparison
    undisturbed: float

    @property
    def ratio(self) -> float:
        """The time of the disturbed run over that of the undisturbed one, pauses of suspended processes included."""
        return self.told.seconds / self.undisturbed

    @property
    def is_clean(self) -> bool:
        """True where the study is complete and equal, and nothing went another way than it should."""
        return self.told.complete and self.comparison.is_clean and not self.told.wrong

    def document(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {
            "trials": self.trials,
            **vars(self.told),
            **vars(self.comparison),
            "seconds_undisturbed": round(self.undisturbed, 2),
            "time_ratio": round(self.ratio, 3),
            "machine": {"system": platform.system(), "cores": os.cpu_count(), "python": platform.python_version()},
        }

    def text(self) -> str:
        """Return a page in Markdown."""
        told, found = self.told, self.comparison
        rows = [
            ("trials", self.trials),
            ("seed of the disturbances", told.seed),
            ("kills", told.kills),
            ("starts of the command", told.starts),
            ("second runners refused", told.refused),
            ("**lost**", len(found.lost)),
            ("**doubled**", len(found.doubled)),
            ("**unequal**", len(found.unequal)),
            ("seconds, undisturbed", f"{self.undisturbed:.1f}"),
            ("seconds, disturbed", f"{told.seconds:.1f} (of them suspended: {told.suspended:.1f})"),
            ("**time ratio**", f"{self.ratio:.2f}"),
            ("complete", "yes" if told.complete else "no"),
        ]
        lines = ["# A disturbed study beside an undisturbed one", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in rows]
        lines += ["", "| disturbance | times |", "|---|---|"]
        lines += [f"| {what} | {count} |" for what, count in sorted(told.disturbances.items())]
        wrong = [*told.wrong, *found.lost, *found.doubled, *found.unequal]
        lines += ["", "## What should not have happened", "", *[f"- {text}" for text in wrong or ["nothing"]]]
        lines += ["", "## Files left beside the records", "", *[f"- {text}" for text in found.litter or ["none"]], ""]
        return "\n".join(lines)


def soak(
    folder: Path, trials: int, times: Mapping[str, int], seed: int, *, epochs: int = 3, megabytes: int = 0
) -> Soaked:
    """Run a study of `trials` tiny trials of `epochs` undisturbed and disturbed, below `folder`, and compare.

    With `megabytes` the disturbed study gets a disk of that size of its own, where the system allows one.
    """
    study = tiny_study(trials, epochs=epochs)
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(disk(folder / "disk", megabytes)) if megabytes else None
        undisturbed = Command((own or folder) / "undisturbed", study, logs=folder)
        seconds = undisturbed.run()
        expected = folder / "expected"
        shutil.move(undisturbed.results, expected)  # the other study has the disk, which is of the same kind, to itself
        command = Command((own or folder) / "disturbed", study, logs=folder)
        told = Disturbance(command, schedule(times, trials, seed), trials=trials, seed=seed, disk=own).run()
        if own is not None:  # to be looked at when its disk has gone
            shutil.copytree(command.results, folder / "disturbed" / "results" / "soak")
        return Soaked(trials, told, compare(expected, command.results), seconds)


def main() -> None:
    """Soak as the options say, write the report, and exit with 1 where anything was lost, doubled or unequal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="a multiple of ten")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of a trial")
    parser.add_argument("--times", type=float, default=1.0, help="this share of all disturbances")
    parser.add_argument("--seed", type=int, default=None, help="of the disturbances; drawn and printed by default")
    parser.add_argument("--report", type=Path, default=Path("soak"), help="path of the report, without its ending")
    parser.add_argument("--keep", type=Path, default=None, help="folder for both studies, kept afterwards")
    options = parser.parse_args()
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    times = {what: max(1, round(count * options.times)) for what, count in EVERYTHING.items()}
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        done = soak(folder, options.trials, times, seed, epochs=options.epochs, megabytes=max(64, options.trials // 5))
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.with_suffix(".json").write_text(json.dumps(done.document(), indent=1) + "\n", encoding="utf-8")
    options.report.with_suffix(".md").write_text(done.text(), encoding="utf-8")
    print(done.text())
    sys.exit(0 if done.is_clean else 1)


if __name__ == "__main__":
    main()
