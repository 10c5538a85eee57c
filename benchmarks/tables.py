"""From what a comparison measured to its tables: ratios with their spread, shares, final scores, phases, goals."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.phases import PHASES

# Times `ablate` is faster than each peer, and its share of the matmul rate: what must be reached, what is aimed at.
GOALS: dict[str, dict[str, tuple[float, float]]] = {
    "two cores with AMX": {
        "plain": (3.0, 6.0), "lightning": (3.0, 7.0), "ray": (3.0, 7.0), "expert": (1.15, 1.5), "share": (0.12, 0.25),
    },
    "one H200": {
        "plain": (3.0, 5.0), "lightning": (3.5, 6.0), "ray": (3.5, 6.0), "expert": (1.15, 1.4), "share": (0.4, 0.5),
    },
    "one H200, small study": {"plain": (4.0, 10.0)},
}  # fmt: skip
# A peer whose loop is slower than this share of its own bare steps would be a weakened peer.
LEAST_LOOP_RATE = 0.9
# Cores that others may use while something is timed, before the table says that the machine was not quiet.
QUIET = 0.1


def summarise(document: dict[str, Any]) -> dict[str, Any]:
    """Ratios to `ablate` (peer's seconds / ablate's of the same round), shares and loop rates, from the raw rounds.

    Warm rounds give median, least and largest; the cold round stands by itself.
    """
    rounds = document["rounds"]
    warm = [entry["runs"] for entry in rounds if entry["cache"] == "warm"]
    cold = [entry["runs"] for entry in rounds if entry["cache"] == "cold"]
    found: dict[str, Any] = {}
    for name in document["contestants"]:
        row: dict[str, Any] = {}
        for label, runs in (("warm", warm), ("cold", cold)):
            if not runs:
                continue
            row[f"{label}_s"] = spread([run[name]["wall_s"] for run in runs])
            if "ablate" in document["contestants"]:
                row[f"{label}_ratio"] = spread([run[name]["wall_s"] / run["ablate"]["wall_s"] for run in runs])
            row[f"{label}_share"] = spread(
                [document["flops"] / run[name]["wall_s"] / (1e12 * document["matmul"]["median"]) for run in runs]
            )
        check = document.get("checks", {}).get(name)
        if check:
            row["loop_rate"] = {entry["variant"]: loop_rate(entry) for entry in check}
        found[name] = row
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def loop_rate(check: dict[str, Any]) -> float:
    """Rate of a training loop as a share of its bare steps' rate: the median over paired rounds."""
    return statistics.median(bare / loop for bare, loop in zip(check["bare_s"], check["loop_s"], strict=True))


def render(document: dict[str, Any]) -> str:
    """Return the comparison as Markdown."""
    summary = summarise(document)
    parts = [_head(document), _speed(summary), _goals(document, summary), _scores(document)]
    parts += [_phases(document), _quiet(document)]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_both(path: Path, document: dict[str, Any], text: str) -> None:
    """Write a result as `<path>.json` and, in Markdown, as `<path>.md`; print the latter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name may have dots in it.
    path.with_name(f"{path.name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    path.with_name(f"{path.name}.md").write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    print(text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _head(document: dict[str, Any]) -> str:
    machine, matmul = document["machine"], document["matmul"]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    flops = document["flops"] / 1e12
    lines = [
        f"# {document['name']}",
        "",
        f"- command: `{document['command']}`",
        f"- machine: {machine['device']}, {machine['cores']} cores",
        f"- versions: {versions}",
        f"- study: {document['trials']} trials, {flops:.3g} TFLOP ({document['study']})",
        f"- measured matrix products: {matmul['median']:.3g} TFLOP/s in {matmul['dtype']}, "
        f"{matmul['min']:.3g} to {matmul['max']:.3g} over the run",
        f"- seconds are wall clock from the start of the process to its end; {len(document['rounds'])} rounds, each "
        f"{', '.join(document['contestants'])} in turn",
    ]
    modes = document.get("expert_modes")
    if modes:
        lines.append(f"- expert: {'bfloat16' if document['bfloat16'] else 'float32'}; warm {_modes(modes['warm'])}; "
                     f"cold {_modes(modes['cold'])}, whichever its calibration (not timed) found cheaper")  # fmt: skip
    if document.get("decisions"):
        lines.append("- ablate: " + ", ".join(f"{name} {value}" for name, value in document["decisions"].items()))
    return "\n".join(lines)


def _modes(modes: dict[str, str]) -> str:
    return ", ".join(f"{variant} {mode}" for variant, mode in modes.items())


def _speed(summary: dict[str, Any]) -> str:
    rows = []
    for name, row in summary.items():
        rates = row.get("loop_rate")
        rows.append(
            [
                name,
                _spread(row.get("warm_s"), ".1f"),
                _spread(row.get("warm_ratio"), ".2f"),
                _spread(row.get("cold_s"), ".1f"),
                _spread(row.get("cold_ratio"), ".2f"),
                _spread(row.get("warm_share"), ".1%"),
                "–" if not rates else ", ".join(f"{rate:.0%}" for rate in rates.values()),
            ]
        )
    head = ["", "warm, s", "× ablate", "cold, s", "× ablate", "of the matmul rate (warm)", "loop / bare steps"]
    text = "## Speed\n\n" + table(head, rows)
    weak = [
        name for name, row in summary.items() if any(r < LEAST_LOOP_RATE for r in row.get("loop_rate", {}).values())
    ]
    if weak:
        text += f"\n\nBelow {LEAST_LOOP_RATE:.0%} of its bare steps, so not at its best here: {', '.join(weak)}."
    return text


def _spread(value: dict[str, float] | None, form: str) -> str:
    if value is None:
        return "–"
    if value["min"] == value["max"]:
        return f"{value['median']:{form}}"
    return f"{value['median']:{form}} [{value['min']:{form}}, {value['max']:{form}}]"


def _goals(document: dict[str, Any], summary: dict[str, Any]) -> str:
    if "ablate" not in summary:
        return ""
    named = document.get("goals", "two cores with AMX")
    goals, machine = GOALS[named], document["machine"]
    on_cores = machine["amx"] and machine["cores"] == 2
    judged = on_cores if named == "two cores with AMX" else "H200" in machine["device"]
    label = "warm" if "warm_ratio" in summary["ablate"] else "cold"
    rows = []
    for name, goal in goals.items():
        if name in summary:
            rows.append([f"× {name}", *_judge(summary[name][f"{label}_ratio"], goal, ".2f", judged)])
    if "share" in goals:
        share = summary["ablate"][f"{label}_share"]
        rows.append(["of the matmul rate", *_judge(share, goals["share"], ".1%", judged)])
    text = f"## Goals ({named})\n\n" + table(["", "floor", "aim", "here", "verdict"], rows)
    if not judged:
        text += "\n\nThis machine is not the one the goals are set for: they cannot be judged here."
    return text


def _judge(value: dict[str, float], goal: tuple[float, float], form: str, judged: bool) -> list[str]:
    floor, aim = goal
    if not judged:
        verdict = "not judged"
    elif value["min"] >= aim:
        verdict = "aim reached"
    elif value["min"] >= floor:
        verdict = "floor passed"
    else:
        verdict = "floor missed" if value["max"] < floor else "floor within the spread"
    return [f"{floor:{form}}", f"{aim:{form}}", _spread(value, form), verdict]


def _scores(document: dict[str, Any]) -> str:
    contestants = document["contestants"]
    final = document["rounds"][-1]["runs"]
    cells: dict[tuple[str, float, int], dict[str, float]] = {}
    for name in contestants:
        for trial in final[name]["trials"]:
            key = (trial["variant"], trial["lr"], trial["seed"])
            cells.setdefault(key, {})[name] = trial["test_mean_iou"]
    rows = [
        [variant, f"{lr:g}", str(seed), *(_percent(scores.get(name)) for name in contestants)]
        for (variant, lr, seed), scores in cells.items()
    ]
    means = [statistics.fmean(scores[name] for scores in cells.values() if name in scores) for name in contestants]
    rows.append(["mean", "", "", *(_percent(mean) for mean in means)])
    return "## Final test mIoU, %\n\n" + table(["variant", "lr", "seed", *contestants], rows)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _phases(document: dict[str, Any]) -> str:
    found = {
        label: [entry["runs"]["ablate"]["phases"] for entry in document["rounds"]
                if entry["cache"] == label and "phases" in entry["runs"].get("ablate", {})]
        for label in ("warm", "cold")
    }  # fmt: skip
    found = {label: runs for label, runs in found.items() if runs}
    if not found:
        return ""
    rows = []
    for phase, meaning in PHASES.items():
        medians = [statistics.median(run[phase] for run in runs) for runs in found.values()]
        rows.append([phase.replace("_", " "), *(f"{seconds:.2f}" for seconds in medians), meaning])
    head = ["phase", *(f"{label}, s" for label in found), ""]
    return "## Where the time of `ablate` goes (a worker's wall clock)\n\n" + table(head, rows)


def _quiet(document: dict[str, Any]) -> str:
    loud = [
        f"{name} in round {number} ({run['others_cores']:.1f} cores)"
        for number, entry in enumerate(document["rounds"], 1)
        for name, run in entry["runs"].items()
        if run["others_cores"] > QUIET
    ]
    if not loud:
        return ""
    return "The machine was not quiet: other processes were at work beside " + ", ".join(loud) + "."
