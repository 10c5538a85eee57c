"""Stability of one run: how its loss, gradient norm and validation curves rise, spike, and waver.

A run gives two streams per step, training loss and gradient norm before clipping, and curves per epoch. Every measure
is a `Measured`: a number, or NaN with its reason. Losses are in nats and must not be negative where a logarithm or a
ratio is taken. The measures of a trial that stand in tables are registered at the end, in their order.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from ablate.measure import Measured, TrialArrays, unknown
from ablate.registry import register_measure
from ablate.wording import count_of

SPIKE_FROM = 32
SPIKE_WINDOW = 128
SPIKE_SCALES = 6.0
MAD_TO_SIGMA = 1.4826
# The least MAD of a log stream, 0.1 %: a stream that stands still has no scale of its own to judge a spike by.
LEAST_MAD = 1e-3
# Multiples of the optimizer's step between which `lr_headroom` looks; an answer equal to one of them is censored.
LEAST_HEADROOM = 2.0**-6
MOST_HEADROOM = 2.0**8

_LEAST_ELIGIBLE = 32
_LEAST_DIFFERENCES = 20


def epoch_medians(values: np.ndarray, steps_per_epoch: int) -> np.ndarray:
    """Return the median of each whole epoch of a stream (S,): float64 (S // steps_per_epoch,).

    NaN where a value is not finite.
    """
    if steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch must be positive, got {steps_per_epoch}")
    values = np.asarray(values, dtype=np.float64)
    epochs = len(values) // steps_per_epoch
    table = values[: epochs * steps_per_epoch].reshape(epochs, steps_per_epoch)
    table = np.where(np.isfinite(table), table, np.nan)
    return np.median(table, axis=1) if epochs else np.empty(0)


def rise(curve: ArrayLike) -> Measured:
    """Return how far a loss per epoch rose above its lowest earlier value: max over e of x_e / min over e' < e of x_e'.

    `curve` (E,) is the median training loss of each epoch, or the val loss of each epoch. 1 where it never rose,
    infinity where a value is not finite: such a run has diverged. Batch noise and single spikes do not move the
    median of an epoch; a run that goes up again does.
    """
    losses = np.asarray(curve, dtype=np.float64)
    if not np.isfinite(losses).all():
        return Measured(np.inf)
    if len(losses) < 2:
        return unknown(f"{count_of(len(losses), 'epoch')}; a rise needs two")
    if (losses < 0).any():
        return unknown("the loss is negative, so that a ratio says nothing")
    lowest, later = np.minimum.accumulate(losses)[:-1], losses[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(later == lowest, 1.0, later / lowest)
    return Measured(max(1.0, float(ratio.max())))


def _log(stream: np.ndarray) -> np.ndarray:
    """Return the logarithm of a stream that is not negative.

    Zero counts as the smallest float32, what is not finite as NaN.
    """
    stream = np.asarray(stream, dtype=np.float64)
    stream = np.where(np.isfinite(stream), stream, np.nan)
    return np.log(np.maximum(stream, float(np.finfo(np.float32).tiny)))


def _sorted_median(ordered: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the median of the first `count` (R,) entries of each sorted row; NaN where there is none."""
    rows = np.arange(len(ordered))
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, ordered.shape[1] - 1)
    middle = (ordered[rows, low] + ordered[rows, high]) / 2
    return np.where(count > 0, middle, np.nan)


def _flags(stream: np.ndarray) -> np.ndarray:
    """Flag the steps of one stream above the median of their window by more than 6 · 1.4826 · MAD of it: bool (S,)."""
    values = _log(stream)
    # The values before each step, infinity where there is none or it is not finite.
    padded = np.concatenate([np.full(SPIKE_WINDOW, np.inf), np.where(np.isfinite(values), values, np.inf)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, SPIKE_WINDOW)[: len(values)]
    flags = np.zeros(len(values), dtype=bool)
    # In blocks, so that the windows of a long run never all lie in memory.
    for start in range(SPIKE_FROM, len(values), 1 << 14):
        block = slice(start, min(start + (1 << 14), len(values)))
        ordered = np.sort(windows[block], axis=1)
        count = np.isfinite(ordered).sum(axis=1)
        median = _sorted_median(ordered, count)
        deviation = np.where(np.isfinite(ordered), np.abs(ordered - median[:, None]), np.inf)
        mad = _sorted_median(np.sort(deviation, axis=1), count)
        limit = median + SPIKE_SCALES * MAD_TO_SIGMA * np.maximum(mad, LEAST_MAD)
        flags[block] = (values[block] > limit) | np.isnan(values[block])
    return flags


def spike_steps(steps: np.ndarray) -> np.ndarray:
    """Return the steps, counted from 0, at which a spike of the loss or of the gradient norm begins: int64 (K,).

    `steps` (S, 2) holds training loss and gradient norm. From step 32 on a step is flagged where the logarithm of
    either exceeds median + 6 · 1.4826 · max(MAD, 0.001) of the up to 128 steps before it, or is not finite; flags of
    adjacent steps are one spike. Median and MAD, since a spike inside the window moves mean and standard deviation
    so far that it hides the next one; logarithms, since raw streams are skewed and flagged for it.
    """
    steps = np.asarray(steps)
    flagged = _flags(steps[:, 0]) | _flags(steps[:, 1])
    return np.flatnonzero(flagged & ~np.concatenate([[False], flagged[:-1]]))


def spike_rate(steps: np.ndarray) -> Measured:
    """Return the number of spikes (`spike_steps`) per 1,000 eligible steps, those from step 32 on."""
    steps = np.asarray(steps)
    eligible = len(steps) - SPIKE_FROM
    if eligible < _LEAST_ELIGIBLE:
        return unknown(f"{count_of(len(steps), 'step')}; a spike rate needs {SPIKE_FROM + _LEAST_ELIGIBLE}")
    if (steps < 0).any():
        return unknown("a negative loss has no logarithm")
    return Measured(1000.0 * len(spike_steps(steps)) / eligible)


def spike_score(steps: np.ndarray, slack: float = 0.0) -> Measured:
    """Return the share of all steps that are spikes in the form of OLMo, a fraction, for comparison with `spike_rate`.

    A step counts where loss or gradient norm, unlogged, exceeds mean + 6 standard deviations of the full window of
    128 steps before it (allenai/OLMo-core, `stability_monitor.py`, "SpikeScore (total)"); flags are not merged.
    With a `slack`, the share where every value may be off by that fraction of itself: the most, or the least where it
    is negative.
    """
    steps = np.asarray(steps, dtype=np.float64)
    if len(steps) < SPIKE_WINDOW:
        return unknown(f"{count_of(len(steps), 'step')}; the OLMo form needs {SPIKE_WINDOW}")
    flagged = np.zeros(len(steps), dtype=bool)
    for stream in steps.T:
        for start in range(SPIKE_WINDOW, len(stream), 1 << 14):
            block = slice(start, min(start + (1 << 14), len(stream)))
            before = np.lib.stride_tricks.sliding_window_view(stream, SPIKE_WINDOW)
            before = before[start - SPIKE_WINDOW : block.stop - SPIKE_WINDOW]
            with np.errstate(invalid="ignore"):
                mean, std = before.mean(axis=1), before.std(axis=1)
                values, limit = stream[block], mean + SPIKE_SCALES * std
                if slack:
                    # Neither a mean nor a standard deviation moves by more than the root mean square of what is off.
                    moved = slack * np.sqrt((before**2).mean(axis=1))
                    values, std = values + slack * np.abs(values), std + moved
                    limit = limit - (1 + SPIKE_SCALES) * moved
                flagged[block] |= (std >= 1e-10) & (values > limit)
    return Measured(float(flagged.mean()))


def _finite_start(stream: np.ndarray) -> np.ndarray:
    """Return the stream up to its first value that is not finite."""
    stream = np.asarray(stream, dtype=np.float64)
    broken = np.flatnonzero(~np.isfinite(stream))
    return stream[: broken[0]] if len(broken) else stream


def roughness(loss: np.ndarray) -> Measured:
    """Return the spread of the step-to-step changes of the loss relative to its whole descent, without unit.

    Interquartile range of the first differences of `loss` (S,) ÷ (median of the first five steps − 5th percentile);
    after the dispersion within runs of Chan et al. (2020, arXiv 1912.05663): the IQR of the differences. Steps
    from the first non-finite one on are left out.
    """
    loss = _finite_start(loss)
    if len(loss) <= _LEAST_DIFFERENCES:
        return unknown(f"{count_of(len(loss), 'finite step')}; roughness needs {_LEAST_DIFFERENCES + 1}")
    descent = float(np.median(loss[:5]) - np.percentile(loss, 5))
    if descent <= 0:
        return unknown("the loss never fell below where it began")
    upper, lower = np.percentile(np.diff(loss), [75, 25])
    return Measured(float(upper - lower) / descent)


def excess_variation(curve: ArrayLike) -> Measured:
    """Return the way that a curve (E,) went to and fro, in units of its range: (Σ|Δx| − |x_E − x_1|) / (max − min).

    Zero exactly where the curve is monotone. Meant for the epoch medians of the training loss.
    """
    values = np.asarray(curve, dtype=np.float64)
    if not np.isfinite(values).all():
        return unknown("a value is not finite")
    if len(values) < 3:
        return unknown(f"{count_of(len(values), 'epoch')}; to and fro needs three")
    changes = np.diff(values)
    if (changes >= 0).all() or (changes <= 0).all():
        return Measured(0.0)
    excess = np.abs(changes).sum() - np.abs(values[-1] - values[0])
    return Measured(float(excess / np.ptp(values)))


def tail_risk(loss: np.ndarray) -> Measured:
    """Return the mean of the upper 5 % of the step-to-step differences of log loss, in nats of log loss per step.

    The conditional value at risk of the differences, as the short-term risk across time of Chan et al. (2020, arXiv
    1912.05663), with the sign turned: for a loss the bad side is up. Steps from the first non-finite one on are left
    out.
    """
    loss = _finite_start(loss)
    if len(loss) <= _LEAST_DIFFERENCES:
        return unknown(f"{count_of(len(loss), 'finite step')}; tail risk needs {_LEAST_DIFFERENCES + 1}")
    if (loss < 0).any():
        return unknown("a negative loss has no logarithm")
    changes = np.sort(np.diff(_log(loss)))
    return Measured(float(changes[-int(np.ceil(0.05 * len(changes))) :].mean()))


def rounding_bounds(steps: np.ndarray, steps_per_epoch: int, bits: int) -> dict[str, tuple[float, float]]:
    """Return between which values each measure of the steps (S, 2) was before these were rounded to so many bits.

    A value of `bits` significant bits is off by at most 2^-bits of itself. Medians, percentiles and means of the
    largest values never fall where every value rises, which bounds them. NaN for what cannot be had of the rounded
    steps.
    """
    unit = 2.0**-bits
    medians = epoch_medians(steps[:, 0], steps_per_epoch)
    loss = _finite_start(steps[:, 0])
    risen, risk = rise(medians).value, tail_risk(steps[:, 0]).value
    # The logarithms of both ends of a difference.
    most = -2 * np.log1p(-unit)
    return {
        "rise": (risen * (1 - 3 * unit), risen * (1 + 3 * unit)),
        "spike_score": (spike_score(steps, -unit).value, spike_score(steps, unit).value),
        "roughness": _roughness_bounds(loss, unit) if np.isfinite(roughness(loss).value) else (np.nan, np.nan),
        "excess_variation": _excess_bounds(medians, unit) if np.isfinite(medians).all() else (np.nan, np.nan),
        "tail_risk": (risk - most, risk + most),
    }


def _roughness_bounds(loss: np.ndarray, unit: float) -> tuple[float, float]:
    off, changes = unit * np.abs(loss), np.diff(loss)
    both = off[1:] + off[:-1]
    least, most = (
        np.percentile(changes + sign * both, 75) - np.percentile(changes - sign * both, 25) for sign in (-1, 1)
    )
    shortest, longest = (np.median((loss + sign * off)[:5]) - np.percentile(loss - sign * off, 5) for sign in (-1, 1))
    return max(0.0, float(least / longest)), float(most / shortest) if shortest > 0 else np.inf


def _excess_bounds(medians: np.ndarray, unit: float) -> tuple[float, float]:
    if len(medians) < 3 or not medians.any():
        return np.nan, np.nan
    off, changes, net = unit * np.abs(medians), np.abs(np.diff(medians)), np.abs(medians[-1] - medians[0])
    both, ends = off[1:] + off[:-1], off[0] + off[-1]
    least = np.maximum(changes - both, 0).sum() - net - ends
    most = (changes + both).sum() - max(0.0, net - ends)
    narrow, wide = (medians + sign * off for sign in (-1, 1))
    shortest, longest = narrow.max() - wide.min(), wide.max() - narrow.min()
    return max(0.0, float(least / longest)), float(most / shortest) if shortest > 0 else np.inf


def late_oscillation(val_mean_iou: np.ndarray) -> Measured:
    """Return the standard deviation of val mIoU (E,) about its Theil–Sen line over the last epochs, a fraction.

    Over the last max(5, ⌈0.2·E⌉) epochs; the slope is the median of those between all pairs (Theil 1950, Sen 1968).
    """
    curve = np.asarray(val_mean_iou, dtype=np.float64)
    window = max(5, int(np.ceil(0.2 * len(curve) - 1e-9)))
    if len(curve) < window:
        return unknown(f"{count_of(len(curve), 'epoch')}; late oscillation needs {window}")
    late = curve[-window:]
    if not np.isfinite(late).all():
        return unknown("a value of the last epochs is not finite")
    first, second = np.triu_indices(window, k=1)
    slope = np.median((late[second] - late[first]) / (second - first))
    return Measured(float(np.std(late - slope * np.arange(window))))


def censored_headroom(values: np.ndarray) -> np.ndarray:
    """Return which values of `lr_headroom` (any shape) are ends of the range that is probed, [2⁻⁶, 2⁸]: bool.

    Such a value says that the edge of stability lies there or beyond.
    """
    values = np.asarray(values, dtype=np.float64)
    return np.asarray((values <= LEAST_HEADROOM) | (values >= MOST_HEADROOM))


# --- the measures of a trial, as they stand in tables ----------------------------------------------------------------

_stability = partial(register_measure, section="stability")


@_stability("rise", title="rise of the training loss", unit="ratio", order=110)
def _rise(trial: TrialArrays) -> Measured:
    """Return `rise` of the epoch medians of the training loss, infinity for a run that left the finite anywhere."""
    if trial.diverged or not np.isfinite(trial.steps[:, 0]).all():
        return Measured(np.inf)
    return rise(epoch_medians(trial.steps[:, 0], trial.steps_per_epoch))


@_stability("val_rise", title="rise of the val loss", unit="ratio", order=120)
def _val_rise(trial: TrialArrays) -> Measured:
    return rise(trial.epochs["val_loss"])


@_stability("spike_rate", title="spikes of loss or gradient norm", unit="per 1,000 steps", order=130)
def _spike_rate(trial: TrialArrays) -> Measured:
    return spike_rate(trial.steps)


@_stability("spike_score", title="share of steps that spike, OLMo's form", order=140)
def _spike_score(trial: TrialArrays) -> Measured:
    return spike_score(trial.steps)


@_stability("roughness", title="roughness of the training loss", order=150)
def _roughness(trial: TrialArrays) -> Measured:
    return roughness(trial.steps[:, 0])


@_stability("excess_variation", title="excess variation of the training loss", order=160)
def _excess_variation(trial: TrialArrays) -> Measured:
    return excess_variation(epoch_medians(trial.steps[:, 0], trial.steps_per_epoch))


@_stability("tail_risk", title="tail risk of the training loss", unit="nats of log loss per step", order=170)
def _tail_risk(trial: TrialArrays) -> Measured:
    return tail_risk(trial.steps[:, 0])


@_stability("late_oscillation", title="late oscillation of val mIoU", order=180)
def _late_oscillation(trial: TrialArrays) -> Measured:
    return late_oscillation(trial.epochs["val_mean_iou"])


@_stability("lr_headroom", title="learning-rate headroom", unit="multiples of the step", order=190)
def _lr_headroom(trial: TrialArrays) -> float:
    """Return the least of the probed points of training of the factor by which steps could be longer; NaN unprobed."""
    probed = [value for values in trial.layers.get("lr_headroom", {}).values() for value in values if value is not None]
    return min(probed, default=np.nan)
