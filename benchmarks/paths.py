"""The fast path beside the plain one: do both give the same results? `python -m benchmarks.paths --study <file>`.

A study is run twice by `ablate run`: as it decides for itself (and with what `--fast` says), and in float32 op by op.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

import ablate
from ablate.records.store import Results
from ablate.train.device import device_class
from ablate.wording import count_of
from benchmarks.common import versions
from benchmarks.tables import table, write_both

PLAIN = ("train.precision=float32", "run.engine=eager")


def run(study: Path, overrides: list[str], folder: Path, *more: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the trials of the study with these overrides, and what was decided for them; `more` are further words."""
    words = [word for override in overrides for word in ("-o", override)]
    command = [
        sys.executable,
        "-m",
        "ablate.cli",
        "run",
        str(study),
        *words,
        *more,
        "--no-profile",
        "--out",
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    decisions = {name: entry["value"] for name, entry in Results(folder).read_run()["decisions"].items()}
    return ablate.load_results(folder).trials, decisions


def compared(fast: pd.DataFrame, plain: pd.DataFrame) -> list[dict[str, Any]]:
    """For each cell the mean test mIoU on both paths, and the seeds' spread: standard deviation, the larger of both."""
    rows = []
    for (variant, setting), ours in fast.groupby(["variant", "setting"], sort=False):
        theirs = plain[(plain["variant"] == variant) & (plain["setting"] == setting)]
        means = [float(part["test_mean_iou"].mean()) for part in (ours, theirs)]
        spread = max(float(part["test_mean_iou"].std()) for part in (ours, theirs))
        rows.append(
            {"variant": variant, "setting": setting, "seeds": len(ours), "fast": means[0], "plain": means[1],
             "difference": means[0] - means[1], "spread": spread}
        )  # fmt: skip
    return rows


def render(document: dict[str, Any]) -> str:
    """Return the comparison as Markdown."""
    rows = [
        [row["variant"], row["setting"], f"{100 * row['fast']:.2f}", f"{100 * row['plain']:.2f}",
         f"{100 * row['difference']:+.2f}", f"{100 * row['spread']:.2f}"]
        for row in document["rows"]
    ]  # fmt: skip
    within = sum(abs(row["difference"]) <= row["spread"] for row in document["rows"])
    ways = [
        f"- {name}: {way['precision']}, {way['engine']}, {count_of(way['workers'], 'worker')} of "
        f"{count_of(way['threads'], 'thread')}"
        for name in ("fast", "plain")
        for way in (document[name],)
    ]
    return "\n".join(
        [
            f"# The fast path and the plain one: {document['study']}",
            "",
            f"- command: `{document['command']}`",
            f"- machine: {document['machine']}",
            f"- versions: {', '.join(f'{name} {version}' for name, version in document['versions'].items())}",
            *ways,
            f"- test mIoU in %, mean of {document['rows'][0]['seeds']} seeds; spread: their standard deviation, "
            f"the larger of both paths'. {within} of {len(document['rows'])} differences are within it.",
            "",
            table(["variant", "setting", "fast", "plain", "fast − plain", "spread of the seeds"], rows),
        ]
    )


def command_line(module: str) -> str:
    """Return the command that runs, without the folders of this machine."""
    words = [f"{word.partition('=')[0]}=<folder>" if "root=" in word else word for word in sys.argv[1:]]
    return " ".join(["python", "-m", module, *words])


def main() -> None:
    """Run both, and write `<out>/paths-<study file>.json` and `.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("-o", "--override", action="append", default=[], help="for both, as `ablate run -o`")
    parser.add_argument("--fast", action="append", default=[], help="for the fast path alone, as `ablate run -o`")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        fast, decided = run(arguments.study, [*arguments.override, *arguments.fast], Path(scratch) / "fast")
        plain, undecided = run(arguments.study, [*arguments.override, *PLAIN], Path(scratch) / "plain")
    document = {
        "command": command_line("benchmarks.paths"),
        "study": arguments.study.stem,
        "machine": device_class("cpu"),
        "versions": versions("torch", "ablate-bench"),
        "fast": decided,
        "plain": undecided,
        "rows": compared(fast, plain),
    }
    write_both(arguments.out / f"paths-{arguments.study.stem}", document, render(document))


if __name__ == "__main__":
    main()
