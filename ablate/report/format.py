"""Numbers and names as people read them: per cents, counts, rates, intervals in points, names short enough for a label.

Fractions stay fractions until they are written; nothing here knows a study.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from ablate.study.trial import number_text


def rate_text(rate: float) -> str:
    """Return a learning rate as people write it, to three digits where it is below 0.01: 3e-4, 0.1."""
    return number_text(float(f"{rate:.{6 if rate >= 0.01 else 3}g}"))


def percent(fraction: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """Return a fraction as a number of per cent, without the sign of per cent; a dash where there is none."""
    if fraction is None or not math.isfinite(fraction):
        return "–"
    text = f"{100 * fraction:{'+' if sign else ''}.{digits}f}"
    # "-0.0" says a direction that the digits do not show.
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def percent_interval(low: float, high: float) -> str:
    """Return an interval of fractions in per cent with signs, "[−2.0, +0.5]"; "" where there is none."""
    return f"[{percent(low, sign=True)}, {percent(high, sign=True)}]" if math.isfinite(low) else ""


def percent_change(value: float, low: float, high: float) -> str:
    """Return a difference of fractions in points with its interval, if it has one: "+2.6 [−2.0, +7.2]"."""
    return f"{percent(value, sign=True)} {percent_interval(low, high)}".rstrip()


def percent_spread(value: float, low: float, high: float) -> str:
    """Return a fraction in per cent and half its interval, where it has one: "62.1 ± 1.4"."""
    half = (high - low) / 2
    return percent(value) + (f" ± {percent(half)}" if math.isfinite(half) else "")


def number(value: float | None, digits: int = 3) -> str:
    """Return a number to so many significant digits; a dash where there is none, and ∞ as itself."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value != 0 and (abs(value) >= 1e5 or abs(value) < 1e-3):
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    places = max(0, digits - 1 - (math.floor(math.log10(abs(value))) if value else 0))
    return f"{value:.{places}f}".replace("-", "−")


def like(text: str, value: float) -> str:
    """Return a number with as many decimals as the one in `text`, so that the two can stand beside one another."""
    return f"{value:.{len(text.partition('.')[2])}f}"


def count_text(value: float | None) -> str:
    """Return a large count with its unit: 486 k, 31.0 M, 253.8 G."""
    if value is None or not math.isfinite(value):
        return "–"
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.0f}"


def typeset(text: str) -> str:
    """Return a sentence with minus signs before negative numbers and a narrow space before every sign of per cent."""
    return re.sub(r"(?<=\d) ?%", "\u202f%", re.sub(r"(?<![\w.)])-(?=\d)", "−", text))


def shorten(name: str, most: int = 22) -> str:
    """Return a name that fits a label: one line, the middle of a long one left out, control characters as blanks."""
    name = " ".join("".join(c if c.isprintable() else " " for c in str(name)).split())
    return _cut(name, most, (most - 1) // 3)


def short_names(names: Sequence[str], most: int = 22) -> dict[str, str]:
    """Return names that fit labels and are told apart there: what is left of a long one shows where it differs.

    The middle goes, between words where possible; where no cut tells two names apart, they are numbered.
    """
    whole = {name: shorten(name, len(str(name)) + 1) for name in names}
    short = {name: text for name, text in whole.items() if len(text) <= most}
    usual = (most - 1) // 3
    for place, (name, text) in enumerate(whole.items(), 1):
        if name in short:
            continue
        words = [n for n in range(2, most - 3) if not text[-n - 1].isalnum()]
        tails = sorted(words, key=lambda n: (abs(n - usual), -n))
        tails += [n for n in sorted(range(1, most - 2), key=lambda n: abs(n - usual)) if n not in words]
        others = [other for key, other in whole.items() if key != name]
        cut = next((n for n in tails if _cut(text, most, n) not in {_cut(o, most, n) for o in others}), None)
        short[name] = f"{text[: most - 4]}… {place}" if cut is None else _cut(text, most, cut)
    return {name: short[name] for name in whole}


def _cut(text: str, most: int, tail: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1 - tail]}…{text[-tail:]}"


_DETAIL = {
    "interior": "interior IoU",
    "excess_boundary": "boundary ÷ interior (relative)",
    "excess_thin": "thin ÷ interior (relative)",
}


def detail_name(measure: str) -> str:
    """Return a measure of detail as a reader knows it: "boundary_3" is the boundary IoU of a band of 3 px."""
    if measure in _DETAIL:
        return _DETAIL[measure]
    kind, _, width = measure.rpartition("_")
    words = {"boundary": "boundary IoU", "trimap": "trimap IoU", "thin": "thin recall"}
    return f"{words[kind]}, {width} px" if kind in words and width.isdigit() else measure.replace("_", " ")
