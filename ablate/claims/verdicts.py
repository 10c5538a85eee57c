"""The study's claims against its evidence: each supported, refuted or inconclusive, never on a point estimate.

A claim is a tree. Its leaves are single comparisons ("the interval lies beyond the threshold"); its nodes say whether
all or any of them must hold, over variants and over the settings that `where` picks. Let α be the error that one
interval leaves on each side.

- *All* is supported where every leaf is, each at α: no correction, since one false leaf already has to be wrong
  (intersection–union test, Berger 1982). *Any* is supported where some leaf is at α/k, k the number of leaves to choose
  from (Bonferroni on the union–intersection test).
- Refuting is the same for the opposite: "all" falls with one leaf at α/k, "any" only when every leaf falls at α.

So a claim is falsely supported, or falsely refuted, with a chance of at most α whatever its shape. Claims are stated
beforehand and judged one by one; nothing is corrected over the claims of a study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import nan
from typing import Literal

import pandas as pd

from ablate.analysis.analyse import Analysis
from ablate.analysis.frames import Frames
from ablate.analysis.schema import CLAIMS
from ablate.claims.evidence import Evidence, Gatherer, Refusal
from ablate.errors import ResultsError
from ablate.stats.intervals import Estimate
from ablate.study.claims import COUNTS, RATES, all_match
from ablate.study.spec import ClaimSpec
from ablate.study.trial import level_text

Verdict = Literal["supported", "refuted", "inconclusive"]


@dataclass(frozen=True)
class Node:
    """All or any of its parts; one part is that part."""

    quantifier: Literal["all", "any"]
    parts: tuple[Node | Evidence, ...]


def judge(frames: Frames, analysis: Analysis) -> pd.DataFrame:
    """Return the verdict on every claim of the study, a row each (columns: `CLAIMS` of `ablate.analysis.schema`)."""
    gatherer = Gatherer(frames, analysis)
    rows = [_judged(number, claim, gatherer) for number, claim in enumerate(frames.study.claims, start=1)]
    return CLAIMS.filled(rows)


def _judged(number: int, claim: ClaimSpec, gatherer: Gatherer) -> dict[str, object]:
    row: dict[str, object] = {"id": claim.id or f"claim-{number}", "text": text_of(claim), "verdict": "inconclusive"}
    row |= dict.fromkeys(("value", "low", "high", "threshold", "confidence"), nan)
    row |= {"at": "", "n": 0, "comparisons": 0, "quantifiers": "", "quantity": "", "method": ""}
    row |= {"side": "", "exact": False, "reason": ""}
    try:
        tree = tree_of(claim, gatherer)
        verdict, leaf, estimate = verdict_of(tree)
    except (Refusal, ResultsError) as refusal:
        return row | {"reason": str(refusal)}
    several = {part.quantifier for part in parts_of(tree) if isinstance(part, Node) and len(part.parts) > 1}
    reasons = dict.fromkeys([estimate.reason, *leaf.notes])
    return row | {
        "verdict": verdict,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "threshold": leaf.threshold,
        "confidence": round(estimate.confidence, 9),
        "at": leaf.at,
        "n": estimate.n,
        "comparisons": len(leaves_of(tree)),
        "quantifiers": " ".join(sorted(several)),
        "quantity": leaf.quantity,
        "method": estimate.method,
        "side": "above" if leaf.above else "below",
        "exact": leaf.exact,
        "reason": "; ".join(reason for reason in reasons if reason),
    }


def tree_of(claim: ClaimSpec, gatherer: Gatherer) -> Node:
    """Return the claim as a tree over variants and settings; raises `Refusal` where it cannot be judged at all."""
    picked = _settings(claim, gatherer.frames)
    if claim.variant in ("any", "all"):
        specs = gatherer.frames.study.variants
        names = [name for name in gatherer.analysis.variants_in_order if not (name in specs and specs[name].control)]
        quantifier: Literal["all", "any"] = "any" if claim.variant == "any" else "all"
    else:
        names, quantifier = [claim.variant or claim.left or ""], "all"
    tree = Node(
        quantifier,
        tuple(
            Node(
                claim.quantifier,
                tuple(_leaf(claim, name, setting, gatherer) for setting in _tried(picked, name, gatherer)),
            )
            for name in names
        ),
    )
    leaves = leaves_of(tree)
    if all(leaf.refused for leaf in leaves):
        raise Refusal(leaves[0].refused)
    return tree


def _leaf(claim: ClaimSpec, variant: str, setting: str | None, gatherer: Gatherer) -> Evidence:
    """Return one comparison; where it cannot be made it decides nothing, but counts among those to choose from."""
    try:
        return gatherer.gather(claim, variant, setting)
    except (Refusal, ResultsError) as refusal:
        nothing = Estimate(nan, nan, nan, reason=str(refusal))
        at = f"{variant} at {setting or 'own best'}"
        return Evidence(
            claim.metric, at, lambda _: nothing, above=True, inclusive=False, threshold=nan, refused=str(refusal)
        )


def _settings(claim: ClaimSpec, frames: Frames) -> list[str | None]:
    """Return the settings that `where` picks, in the order of the plan; [None] (own best) without `where`."""
    if not claim.where:
        return [None]
    main = frames.trials[frames.trials["role"] == "main"].drop_duplicates("setting")
    where = {axis.removeprefix("train."): condition for axis, condition in claim.where.items()}
    rows = main[["setting", *frames.axes]].to_dict("records")
    picked: list[str | None] = [
        str(row["setting"]) for row in rows if all_match(where, {str(axis): level for axis, level in row.items()})
    ]
    if not picked:
        raise Refusal("no setting of the study fulfils `where`")
    return picked


def _tried(settings: list[str | None], variant: str, gatherer: Gatherer) -> list[str | None]:
    """Return those of the settings that a claim about a variant is over: in a search only the variant's own."""
    if gatherer.frames.study.search is None or settings == [None]:
        return settings
    own = [setting for setting in settings if gatherer.scores.members(variant, setting)]
    if not own:
        raise Refusal(f"{variant} tried no setting that fulfils `where`")
    return own


# --- the logic of a tree --------------------------------------------------------------------------------------------


def parts_of(tree: Node | Evidence) -> Iterator[Node | Evidence]:
    """Yield a claim and all its parts, down to the single comparisons."""
    yield tree
    for part in tree.parts if isinstance(tree, Node) else ():
        yield from parts_of(part)


def leaves_of(tree: Node) -> list[Evidence]:
    """Return the single comparisons of a claim."""
    return [part for part in parts_of(tree) if isinstance(part, Evidence)]


def verdict_of(tree: Node) -> tuple[Verdict, Evidence, Estimate]:
    """Return the verdict, the leaf that it hangs on, and that leaf's estimate at the level at which it was judged."""
    supported, leaf, share = _weigh(tree, 1, supporting=True)
    if supported > 0:
        return "supported", leaf, leaf.estimate(share)
    refuted, other, other_share = _weigh(tree, 1, supporting=False)
    if refuted > 0:
        return "refuted", other, other.estimate(other_share)
    # The interval that came nearer to deciding, at its level, but none that seems to have decided: then a part without
    # an interval stands in the way, and says why. What is still missing comes first.
    nearer = refuted > supported and not leaf.refused and not other.seems_decided(other_share)
    if nearer or leaf.seems_decided(share):
        leaf, share = other, other_share
    return "inconclusive", leaf, leaf.estimate(share)


def _weigh(tree: Node | Evidence, share: int, *, supporting: bool) -> tuple[float, Evidence, int]:
    """Return how far the deciding leaf's interval lies beyond its threshold, that leaf, and its share of α.

    Above zero it lies beyond. Supporting, an "any" takes its strongest part with α divided by their number and an
    "all" its weakest part undivided; refuting, the two change places.
    """
    if isinstance(tree, Evidence):
        return tree.beyond(share, supporting=supporting), tree, share
    strongest = (tree.quantifier == "any") == supporting
    share = share * len(tree.parts) if strongest else share
    parts = [_weigh(part, share, supporting=supporting) for part in tree.parts]
    pick: Callable[..., tuple[float, Evidence, int]] = max if strongest else min
    return pick(parts, key=lambda part: part[0])


# --- the claim in words ---------------------------------------------------------------------------------------------


def text_of(claim: ClaimSpec) -> str:
    """Return the claim as a sentence."""
    place = _place(claim)
    if claim.left is not None:
        right = claim.right if claim.factor is None else f"{claim.factor:g} × {claim.right}"
        margin = f" by at least {claim.margin:g}" if claim.margin else ""
        return f"{claim.metric}: {claim.left} {claim.op} {right}{margin}, {place}"
    subject = {"any": "some variant", "all": "every variant"}.get(claim.variant or "", claim.variant)
    if claim.expect is not None:
        return f"{claim.metric}: {subject} is {claim.expect}, {place}"
    return f"{claim.metric}: {subject} {claim.op} {claim.value:g}, {place}"


def _place(claim: ClaimSpec) -> str:
    if claim.metric in COUNTS:
        return "as counted"
    if claim.metric in RATES:
        return "measured alone"
    return where_text(claim) or ("each at its own best setting" if claim.left else "at its own best setting")


def where_text(claim: ClaimSpec) -> str:
    """Return the settings that `where` picks: "at lr = 1e-3", "at every setting with lr <= 1e-3"; "" without it."""
    conditions = [_condition(axis, value) for axis, value in (claim.where or {}).items()]
    every = f"{'every' if claim.quantifier == 'all' else 'some'} setting with "
    only = all(" = " in one for one in conditions)
    return f"at {'' if only else every}{' and '.join(conditions)}" if conditions else ""


def _condition(axis: str, value: object) -> str:
    name = axis.removeprefix("train.")
    if isinstance(value, str) and value.lstrip()[:1] in ("<", ">"):
        bound = value.strip().lstrip("<>=")
        return f"{name} {value.strip()[: -len(bound)]} {bound.strip()}"
    return f"{name} = {level_text(value)}"
