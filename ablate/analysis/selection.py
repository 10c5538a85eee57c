"""The setting that each variant is compared at: named rules that see validation scores only."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from ablate.study.trial import number_text

OUTER = 0.1
# Variant -> setting; None where nothing can be chosen.
Choice = dict[str, str | None]


# Every rule is given V and nothing else: a row a variant and a column a setting, in the order of the plan, NaN where a
# cell may not be chosen. Of equals it chooses the setting that comes first.


def best_of_each(v: pd.DataFrame) -> Choice:
    """Return each variant at the setting that is best for it: the highest V of its own."""
    return {str(variant): _best(row) for variant, row in v.iterrows()}


def best_of_all(v: pd.DataFrame, controls: Collection[str] = ()) -> Choice:
    """Return all variants at one setting: that of the highest mean of V over the variants, `controls` left out.

    Of the settings at which every variant has a result.
    """
    judged = v.drop(index=[name for name in controls if name in v.index]).dropna(how="all")
    everywhere = judged.columns[judged.notna().all()] if len(judged) else judged.columns[:0]
    return _at(v, _best(judged[everywhere].mean()))


def each_setting(v: pd.DataFrame) -> list[Choice]:
    """Return all variants at the same setting, for every setting of the grid; nothing is chosen."""
    return [_at(v, setting) for setting in v.columns]


def _at(v: pd.DataFrame, setting: str | None) -> Choice:
    return {
        variant: setting if setting is not None and pd.notna(v.loc[variant, setting]) else None for variant in v.index
    }


def _best(scores: pd.Series) -> str | None:
    known = scores.dropna()
    return str(known.index[int(np.argmax(known.to_numpy()))]) if len(known) else None


def v_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Return V of every cell that may be chosen: variants × settings in the order of the plan.

    V is the mean of `val_score` over the seeds with a result. NaN, never chosen: a cell without a result, and one
    with a pruned seed, whose survivors' mean would flatter it. Trials of the role "confirm" take no part.
    """
    main = trials[trials["role"] == "main"]
    variants, settings = main["variant"].drop_duplicates(), main["setting"].drop_duplicates()
    pruned = main["status"].eq("pruned").groupby([main["variant"], main["setting"]], sort=False).any()
    mean = main.groupby(["variant", "setting"], sort=False)["val_score"].mean().where(~pruned)
    return mean.unstack("setting").reindex(index=variants, columns=settings)  # noqa: PD010 (pivot would sort)


def eligible(v: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Return V without the cells that a variant may not be chosen at: those of fewer seeds than its others have.

    Where screening gives more seeds to the best settings, the single runs of the others take no part any more: of many
    single runs the luckiest would win. Seeds count as planned, so that a failed one shuts no cell out.
    """
    main = trials[trials["role"] == "main"]
    seeds = main.groupby(["variant", "setting"], sort=False).size().unstack("setting")  # noqa: PD010 (pivot would sort)
    seeds = seeds.reindex(index=v.index, columns=v.columns).where(v.notna())
    return v.where(seeds.eq(seeds.max(axis=1), axis=0))


def bracket(setting: str, row: pd.Series, levels: pd.DataFrame, searched: tuple[float, float] | None = None) -> str:
    """Say why the learning rate of `setting` is unbracketed, "" where rates on both sides were tried.

    `row` is one variant's V by setting; `levels` has a row a setting (its index) and a column an axis, "lr" among
    them. Neighbours are the settings with a result that differ in the rate alone. In a search, where settings differ
    in all axes, a rate is unbracketed in the lowest or highest tenth of the range that was `searched`, by logarithm.
    """
    known = row[row.notna()]
    if known.max() <= 0:
        return "every seed diverged at every setting"
    rate_of = dict(zip(levels.index, levels["lr"].astype(float).tolist(), strict=True))
    rate = rate_of[setting]
    if searched is not None:
        place = float(np.log(rate / searched[0]) / np.log(searched[1] / searched[0]))
        end = "lowest" if place < OUTER else "highest" if place > 1 - OUTER else ""
        return f"{number_text(rate)} is in the {end} tenth of the rates searched" if end else ""
    rates = {rate_of[name] for name in alike_but_rate(setting, [*known.index], levels)}
    if len(rates) < 2:
        return f"{number_text(rate)} is the only rate tried"
    if rate <= min(rates):
        return f"{number_text(rate)} is the lowest rate tried"
    if rate >= max(rates):
        return f"{number_text(rate)} is the highest rate tried"
    return ""


def alike_but_rate(setting: str, settings: Sequence[str], levels: pd.DataFrame) -> list[str]:
    """Return those of `settings` that differ from `setting` in the learning rate alone, itself included."""
    others = [levels[axis].tolist() for axis in levels.columns if axis != "lr"]
    if not others:
        return list(settings)
    level_of = dict(zip(levels.index, zip(*others, strict=True), strict=True))
    return [name for name in settings if all(map(_same, level_of[name], level_of[setting]))]


def _same(left: object, right: object) -> bool:
    # A level that is not set is NaN, which equals nothing.
    return left == right or (left != left and right != right)


def rank_agreement(v: pd.DataFrame) -> pd.DataFrame:
    """Return Kendall's τ_b between the rankings of the variants by V at any two settings.

    Over the variants that have V at both; NaN below two of them.
    """
    rows = []
    for place, setting in enumerate(v.columns):
        for other in v.columns[place + 1 :]:
            both = v[[setting, other]].dropna()
            rows.append((setting, other, _tau(both.to_numpy(float)), len(both)))
    return pd.DataFrame(rows, columns=["setting", "other", "tau", "n_variants"])


def _tau(scores: np.ndarray) -> float:
    """Return Kendall's τ_b between two columns; NaN where one ties all rows.

    By hand, for scipy's is 0.9999999999999999 of equal orders without a tie.
    """
    first, second = np.triu_indices(len(scores), k=1)
    signs = np.sign(scores[first] - scores[second])
    (left, agreement), (_, right) = signs.T @ signs
    return float(agreement / np.sqrt(left * right)) if left and right else np.nan
