"""The component that a variant tests, as a reader calls it, and its effect in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, isnan
from typing import Any

from ablate.analysis.analyse import Analysis
from ablate.report.diff import as_text, flatten
from ablate.report.format import percent, percent_change
from ablate.report.lookup import Row, primary_contrasts
from ablate.study.spec import MatchSpec
from ablate.wording import count_of, listed

# The components of the built-in networks by field and value.
NAMES = {
    ("skip", "concat"): "skip connections",
    ("skip", "attention"): "attention gates",
    ("block", "plain"): "plain blocks",
    ("block", "residual"): "residual blocks",
    ("norm", "batch"): "batch normalisation",
    ("norm", "group"): "group normalisation",
}
# The same where the other side has nothing in its place.
ADDED = {("skip", "attention"): "skip connections with attention gates"}
# Values that say that a component is absent.
ABSENT = ("none", "None", "identity", "off", "False", "false", "no", "0", "0.0", "[1.0, 1.0]")
# Beyond so many seeds nobody decides a difference.
MOST_RUN = 100
_OF_A_VARIANT = {"help": "is better", "hurt": "is worse"}
DECISIONS = ("better", "worse", "equivalent")


@dataclass(frozen=True)
class Component:
    """The component that a contrast tests: its name, whether that is a plural, and whether the variant has it.

    Where the baseline has it and the variant goes without, its effect is the difference with the sign turned. `alone`
    says that the other side has nothing in its place; a variant that differs in several settings is tested as a
    `whole`, by its own name.
    """

    name: str
    plural: bool
    of_variant: bool
    alone: bool = False
    whole: bool = False

    def does(self, verb: str) -> str:
        """Return the name with a verb that agrees with it: "skip connections help", "the variant wide is better"."""
        if self.whole:
            return f"{self.subject} {_OF_A_VARIANT.get(verb, f'{verb}s')}"
        return f"{self.name} {verb}{'' if self.plural else 's'}"

    @property
    def subject(self) -> str:
        """Return the name as a sentence begins with it; a variant's own is not spelled anew with a capital."""
        return f"the variant {self.name}" if self.whole else self.name

    def effect(self, row: Row) -> tuple[float, float, float]:
        """Return difference and interval that having the component makes, from the row of a contrast."""
        delta, low, high = (float(row[key]) for key in ("delta", "low", "high"))
        return (delta, low, high) if self.of_variant else (-delta, -high, -low)


def differences_of(analysis: Analysis, variant: str) -> dict[str, tuple[Any, Any]]:
    """Return every setting in which a variant differs from its baseline, by its dotted name: there, and here."""
    described = (analysis.frames.run.get("variants") or {}).get(variant) or {}
    found: dict[str, tuple[Any, Any]] = {}
    for field, (base, own) in (described.get("differs") or {}).items():
        sides = flatten(base, field), flatten(own, field)
        names = dict.fromkeys([*sides[0], *sides[1]])
        found |= {name: (sides[0].get(name), sides[1].get(name)) for name in names}
    return {name: pair for name, pair in found.items() if pair[0] != pair[1]}


def differs_text(analysis: Analysis, variant: str) -> str:
    """Return what `differences_of` finds, as text: "skip: concat → none; train.augment.flip: yes → no"."""
    pairs = differences_of(analysis, variant).items()
    said = [f"{name}: {as_text(base)} → {as_text(own)}".replace('"', "") for name, (base, own) in pairs]
    if (match := _match_of(analysis, variant)) is not None:
        said.append(f"as many {match.by} as {match.to}" if match.by == "parameters" else f"as many FLOPs as {match.to}")
    return "; ".join(said)


def _match_of(analysis: Analysis, variant: str) -> MatchSpec | None:
    """Return how a variant was made as large as another one; None where it was not."""
    spec = analysis.frames.study.variants.get(variant)
    return None if spec is None else spec.match


def component(analysis: Analysis, variant: str) -> Component:
    """Return the component that a variant tests.

    The variant by its own name where it differs in several settings, or in a size that matches another variant's.
    """
    differs = differences_of(analysis, variant)
    if len(differs) != 1 or _match_of(analysis, variant) is not None:
        return Component(variant, False, True, whole=True)
    field, (base, own) = next(iter(differs.items()))
    return _tested(field, base, own, variant)


def _tested(field: str, base: Any, own: Any, variant: str = "") -> Component:
    if field.startswith("replace."):
        return Component(f"the layers {field.partition('.')[2]}", True, own is None, True)
    if field == "data.fraction":
        return Component(f"training on {100 * own:g} % of the images", False, True)
    of_variant = str(own) not in ABSENT
    present, other = (own, base) if of_variant else (base, own)
    value, last = str(present), field.rpartition(".")[2]
    alone = str(other) in ABSENT
    known = (ADDED.get((field, value)) if alone else None) or NAMES.get((field, value))
    # Numbers have no absence that a name could be made of.
    called = isinstance(present, str) and value in variant
    name = known or (value if called else last if present is True else f"{last} {as_text(present)}")
    return Component(name, known is not None and known.endswith("s"), of_variant, alone)


def interaction_sentence(analysis: Analysis, row: Row) -> str:
    """Return what one component does at either level of another, and whether that differs, in one sentence.

    `row` is one of `Analysis.interactions`.
    """
    tested = _tested(row["factor_a"], row["level_a0"], row["level_a1"])
    sign = 1 if tested.of_variant else -1
    at, beside = (sign * row[f"effect_b{level}"] for level in (0, 1))
    low, high = sorted((sign * row["low"], sign * row["high"]))
    levels = [
        NAMES.get((row["factor_b"], level), f"{row['factor_b']} {level}")
        for level in (row["level_b0"], row["level_b1"])
    ]
    difference = percent_change(sign * row["estimate"], low, high)
    if not isfinite(low):
        judged = f"the difference, {difference}, has no interval: {row['reason']}"
    elif row["decision"] == "additive":
        judged = f"the difference, {difference}, lies within ±{percent(analysis.rope)}: the two add up"
    else:
        judged = f"the difference, {difference}, is {'un' * (row['decision'] == 'undecided')}decided"
    if min(at, beside) > 0 or max(at, beside) < 0:
        effect = f"{tested.does('help' if at > 0 else 'hurt')} by {percent(abs(at))} points with {levels[0]} and by "
        effect += f"{percent(abs(beside))} with {levels[1]}"
    else:
        effect = f"{tested.does('change')} test mIoU by {percent(at, sign=True)} points with {levels[0]} and by "
        effect += f"{percent(beside, sign=True)} with {levels[1]}"
    return _sentence(f"{effect}; {judged}")


def span_text(delta: float, low: float, high: float, *, sign: bool = False, unit: str = " points") -> str:
    """Return an effect in points with its interval: "19 points (14 to 24)", signed "+2.6 points (−2.0 to +7.2)".

    Ten points and more are whole numbers; no interval goes beyond 100 points, which no difference can.
    """
    low, high = max(low, -1.0) if isfinite(low) else low, min(high, 1.0) if isfinite(high) else high
    digits = 0 if abs(delta) >= 0.0995 else 1
    said = percent(delta, digits, sign=sign) + unit
    if not (isfinite(low) and isfinite(high)):
        return said
    signs = sign or low < 0
    return f"{said} ({percent(low, digits, sign=signs)} to {percent(high, digits, sign=signs)})"


def effect_sentence(analysis: Analysis, row: Row, *, unit: str = " points of test mIoU") -> str:
    """Return what the primary contrast of a variant has found, in one sentence with its full stop."""
    tested = component(analysis, row["variant"])
    delta, low, high = tested.effect(row)
    if row["decision"] in ("better", "worse"):
        size = (delta, low, high) if delta > 0 else (-delta, -high, -low)
        return _sentence(f"{tested.does('help' if delta > 0 else 'hurt')}: {span_text(*size, unit=unit)}")
    if row["decision"] == "equivalent":
        return _sentence(f"{tested.does('make')} no difference of more than {percent(analysis.rope)}{unit}")
    known = f": {span_text(delta, low, high, sign=True, unit=unit)}" if isfinite(delta) else ""
    return _sentence(f"whether {tested.does('help')} is undecided{known}")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def reach(row: Row) -> str:
    """Return what an undecided contrast could have found, and how many runs would decide the difference seen.

    "" for one that is decided, for a copy, whose true difference is none, or where neither is known.
    """
    if row["decision"] in DECISIONS or row["untrained"] or row["control"]:
        return ""
    said = []
    if isfinite(row["detectable"]):
        said.append(
            f"a difference of {found_from(row['detectable'])} points would have been found with a chance of 80 %"
        )
    if not isnan(row["seeds_needed"]):
        said.append(f"{seeds_text(row['seeds_needed'])} per variant would decide this difference")
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}"


def found_from(detectable: float) -> str:
    """Return a difference that would have been found, in points; in words beyond 100, which no two scores differ by."""
    return percent(detectable) if detectable <= 1 else "more than 100"


def seeds_text(needed: float) -> str:
    """Return so many seeds in words; beyond what is run for one difference only that they are more."""
    return f"more than {MOST_RUN} seeds" if needed > MOST_RUN else f"about {count_of(f'{needed:.0f}', 'seed')}"


def deciding_seeds(analysis: Analysis) -> int:
    """Return the fresh seeds a variant that would decide the open primary contrasts that can be; 0 for none."""
    primary = primary_contrasts(analysis)
    still = ~primary["decision"].isin(DECISIONS)
    for settled in ("untrained", "control"):
        still &= ~primary[settled].astype(bool)
    needed = primary.loc[still, "seeds_needed"].astype(float)
    needed = needed[needed <= MOST_RUN]
    return int(needed.max()) if len(needed) else 0


def fresh_seeds_option(analysis: Analysis, needed: int) -> str:
    """Return what to add to the study's command for so many fresh seeds of each variant at its chosen setting."""
    confirm = analysis.frames.study.confirm
    change = f"-o confirm.seeds={needed}"
    if confirm is not None and confirm.looks is not None:
        looks = sorted({look for look in confirm.looks if look < needed} | {needed})
        change = f"-o confirm.looks={looks} -o confirm.at_most={needed}".replace(", ", ",")
    return change


def run_command(analysis: Analysis) -> str:
    """Return the command that the study was run by."""
    frames = analysis.frames
    return str(frames.run.get("command") or f"ablate run {frames.study.study}.yaml")


def names_listed(analysis: Analysis, rows: list[dict[str, Any]]) -> str:
    """Return the components of some contrasts as they stand in a sentence."""
    return listed(dict.fromkeys(component(analysis, row["variant"]).name for row in rows))
