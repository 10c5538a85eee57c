"""What a reader must know before the numbers: what is missing, chosen on an edge, confounded, or rests on few seeds."""

from __future__ import annotations

from collections.abc import Iterator

from ablate.analysis.analyse import Analysis
from ablate.errors import visible
from ablate.records.record import computed_differently
from ablate.report.lookup import primary_contrasts, rows_of
from ablate.wording import count_of

_STATUS = (
    ("missing", *(f"{have} no result yet: every number is provisional" for have in ("has", "have"))),
    ("failed", *(f"failed by the machine's fault and {are} left out" for are in ("is", "are"))),
    ("pruned", "was stopped early: its cell is not chosen", "were stopped early: their cells are not chosen"),
    ("diverged", "diverged and counts 0", "diverged and count 0"),
)
LEAST_SEEDS = 5


def notes(analysis: Analysis) -> list[str]:
    """Return what limits the study, one sentence each, ready to print."""
    own = f"{analysis.frames.path}/"
    # A report is passed on: a file of its folder is named from there, not from the root of somebody's disk.
    said = [visible(text.replace(own, "")) for part in (_trials, _contrasts, _study) for text in part(analysis)]
    return [f"{text[0].upper()}{text[1:]}." for text in said]


def _trials(analysis: Analysis) -> Iterator[str]:
    """Say which trials have no full result, and which classes a split does not hold."""
    frames = analysis.frames
    status, total = frames.trials["status"].value_counts(), count_of(len(frames.trials), "trial")
    for name, one, more in _STATUS:
        if status.get(name, 0):
            yield f"{status[name]} of {total} {one if status[name] == 1 else more}"
    if differ := computed_differently(frames.trials["computed_by"]):
        yield f"the trials were not all computed alike, which alone can make numbers differ: {'; '.join(differ)}"
    yield from (f"unreadable: {reason}" for reason in frames.unreadable.values())
    for split, names in frames.run.get("data", {}).get("absent", {}).items():
        yield f"the {split} split has no pixel of {', '.join(names)}: left out of its means, or IoU 0 where predicted"


def _contrasts(analysis: Analysis) -> Iterator[str]:
    """Say which contrasts depend on the choice of the rate, and which choices lie on the edge of the grid."""
    primary = rows_of(primary_contrasts(analysis))
    for row in primary:
        if row["lr_confounded"]:
            pair = f"{row['variant']} against {row['against']}"
            yield f"{pair} is lr-confounded: the shared setting and own best disagree"
    edges = ", ".join(row["variant"] for row in primary if row["unbracketed"])
    if edges:
        yield f"unbracketed: a best rate lies on the edge of the grid in the contrasts of {edges}"


def _study(analysis: Analysis) -> Iterator[str]:
    """Say what the study itself leaves open: declared confounds, a search, few seeds, detail not measured."""
    frames = analysis.frames
    own = [text for text in analysis.variants["confounds"] if text]
    if own:
        yield f"declared confounds, own training settings: {'; '.join(own)}"
    if frames.study.search is not None:
        yield (
            f"settings were searched ({frames.study.search.sampler}), each variant its own: no rate is shared or "
            "matched, and the intervals hold the choice among the settings tried, not the search itself"
        )
    fewest = int(frames.trials.groupby(["variant", "setting"])["seed"].nunique().min())
    if fewest < LEAST_SEEDS:
        yield f"{count_of(fewest, 'seed')} a cell: five are the workable minimum"
    if analysis.no_detail:
        yield analysis.no_detail
