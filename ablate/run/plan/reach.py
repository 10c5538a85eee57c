"""The reach of a study before it is run: the runs of its phases, and the difference that their seeds detect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan

from ablate.study.study import Study
from ablate.wording import count_of, listed

# The chance of finding a difference that the plan speaks of.
POWER = 0.8


@dataclass(frozen=True)
class Spreads:
    """Standard deviations as fractions of mIoU: of a run's test score between seeds, and of a difference by images."""

    seeds: float
    images: float
    source: str


# `python -m benchmarks.decisions` prints those of the published studies, from whose records they are.
DEFAULT_SPREADS = {
    "street": Spreads(0.020, 0.002, "those of the published study of street scenes"),
    "camvid": Spreads(0.028, 0.002, "those of the published study of CamVid"),
}
OTHER_SPREADS = Spreads(0.028, 0.002, "those of the published study of CamVid, for want of a pilot on this data")


@dataclass(frozen=True)
class Phase:
    """Runs that are planned once others have run: how many of each variant, at least and at most, and what they are."""

    text: str
    runs: Mapping[str, tuple[int, int]]

    @property
    def total(self) -> tuple[int, int]:
        """The runs of all variants, at least and at most."""
        return sum(least for least, _ in self.runs.values()), sum(most for _, most in self.runs.values())


def later_phases(study: Study) -> list[Phase]:
    """Return the phases after the grid: the second screening, and the fresh seeds.

    At least is what is run where every contrast is decided at the first look. Rates beyond an edge are not counted.
    """
    phases = []
    screen, confirm = study.spec.screen, study.spec.confirm
    if screen is not None and screen.again:
        settings = {name: sum(not study.excludes(name, item) for item in study.settings()) for name in study.variants}
        runs = {name: screen.more * min(screen.again, count) * (count > 1) for name, count in settings.items()}
        text = f"{count_of(screen.more, 'seed')} more at each variant's {screen.again} best settings by val"
        phases.append(Phase(text, {name: (count, count) for name, count in runs.items()}))
    if confirm is not None:
        looks = confirm.planned_looks
        text = f"{count_of(looks[0], 'fresh seed')} of each variant at its chosen setting"
        if confirm.until is not None:
            text = f"fresh seeds at the chosen settings until decided, looks at {listed(map(str, looks))}"
        phases.append(Phase(text, dict.fromkeys(study.variants, (looks[0], looks[-1]))))
    return [phase for phase in phases if phase.total[1]]


def deciding_seeds(study: Study) -> tuple[int, ...]:
    """Return the seeds a variant that contrasts are decided by: fresh ones at each look, or all of a best cell."""
    screen = study.spec.screen
    if study.spec.confirm is not None:
        return study.spec.confirm.planned_looks
    return (len(study.seeds) + (screen.more if screen is not None and screen.again else 0),)


def detectable(study: Study, spreads: Spreads) -> dict[int, float]:
    """Return the difference of mIoU that is found with a chance of 80 %, by the number of seeds that decide.

    One number of seeds, or each look where the study trains until decided: there at that look's own level, as if it
    had to be found just then. By Welch's test at Holm's first, strictest step over the contrasts (A/A controls are
    families of their own); NaN below two seeds. Without fresh seeds the noise of choosing a setting is not counted.
    """
    # They bring SciPy, which a run does without.
    from ablate.stats.detectable import detectable_difference, holm_first
    from ablate.stats.sequential import level_at

    looks = deciding_seeds(study)
    first = holm_first(1 - study.spec.measure.confidence, contrasts(study))
    levels = level_at(first, looks) if len(looks) > 1 else [first]
    return {
        seeds: detectable_difference(
            [spreads.seeds**2] * 2, [seeds] * 2, alpha=float(level), power=POWER, shared=spreads.images**2
        )
        for seeds, level in zip(looks, levels, strict=True)
    }


def contrasts(study: Study) -> int:
    """Return how many contrasts Holm's correction is over: the variants less the baseline and the A/A controls."""
    return sum(not variant.control and name != study.baseline for name, variant in study.variants.items())


def reach_lines(study: Study) -> list[str]:
    """Return what the study can find, in sentences, and where the spreads come from that they rest on."""
    if not contrasts(study):
        return []
    spreads = DEFAULT_SPREADS.get(study.data["name"], OTHER_SPREADS)
    found = {
        seeds: f"{100 * least:.1f} points" for seeds, least in detectable(study, spreads).items() if not isnan(least)
    }
    if not found:
        return ["can find: nothing, with one seed there is no interval"]
    confirm = study.spec.confirm
    fresh = "fresh seed" if confirm is not None else "seed"
    if len(found) > 1:
        (first, most), *_, (last, least) = found.items()
        text = f"from {least} on with {count_of(last, fresh)}, {most} at the first look with {first}"
    else:
        ((seeds, least),) = found.items()
        text = f"from {least} on with {count_of(seeds, fresh)} a variant"
    choosing = "" if confirm is not None else "; the noise of choosing a setting, which costs more, is not counted"
    return [
        f"can find: differences of mIoU {text}, with a chance of {POWER:.0%} "
        f"(level {1 - study.spec.measure.confidence:.2g} over {count_of(contrasts(study), 'contrast')}){choosing}",
        f"  if runs differ by {100 * spreads.seeds:g} points between seeds and a difference by "
        f"{100 * spreads.images:g} between test images: {spreads.source} (--power takes a pilot's)",
    ]
