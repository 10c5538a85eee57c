"""Stability of one run: how its loss, gradient norm and validation curves rise, spike, and waver.

A run gives two streams per step, training loss and gradient norm before clipping, and curves per epoch. Every measure
is a `Measured`: a number, or NaN with its reason. Losses are in nats and must not be negative where a logarithm or a
ratio is taken.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ablate.measure.measured import Measured, unknown
from ablate.measure.slope import theil_sen_slope
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
    """Median of each whole epoch of streams (..., S): float64 (..., S // steps_per_epoch).

    NaN where a value is not finite.
    """
    if steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch must be positive, got {steps_per_epoch}")
    values = np.asarray(values, dtype=np.float64)
    runs, epochs = values.shape[:-1], values.shape[-1] // steps_per_epoch
    table = values[..., : epochs * steps_per_epoch].reshape(*runs, epochs, steps_per_epoch)
    table = np.where(np.isfinite(table), table, np.nan)
    return np.median(table, axis=-1) if epochs else np.empty((*runs, 0))


def rise(curve: np.ndarray) -> Measured:
    """How far a loss per epoch rose above its lowest earlier value: max over e of x_e / min over e' < e of x_e'.

    `curve` (E,) is the median training loss of each epoch, or the val loss of each epoch. 1 where it never rose,
    infinity where a value is not finite: such a run has diverged. Batch noise and single spikes do not move the
    median of an epoch; a run that goes up again does.
    """
    return _rises(np.asarray(curve, dtype=np.float64)[None])[0]


def _rises(curves: np.ndarray) -> list[Measured]:
    """`rise` of every curve of (T, E)."""
    finite = np.isfinite(curves).all(axis=1).tolist()
    epochs = curves.shape[1]
    if epochs < 2:
        return [
            unknown(f"{count_of(epochs, 'epoch')}; a rise needs two") if known else Measured(np.inf) for known in finite
        ]
    negative = np.asarray((curves < 0).any(axis=1))
    lowest = np.minimum.accumulate(curves, axis=1)[:, :-1]
    later = curves[:, 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(later == lowest, 1.0, later / lowest)
    return [
        Measured(np.inf)
        if not known
        else unknown("the loss is negative, so that a ratio says nothing")
        if below
        else Measured(max(1.0, highest))
        for known, below, highest in zip(finite, negative.tolist(), ratio.max(axis=1).tolist(), strict=True)
    ]


def _log(stream: np.ndarray) -> np.ndarray:
    """Logarithm of a stream that is not negative; zero counts as the smallest float32, what is not finite as NaN."""
    stream = np.asarray(stream, dtype=np.float64)
    stream = np.where(np.isfinite(stream), stream, np.nan)
    return np.log(np.maximum(stream, float(np.finfo(np.float32).tiny)))


def _windows(values: np.ndarray, window: int) -> np.ndarray:
    """The `window` values before each step, (S, window), infinity where there is none or it is not finite."""
    padded = np.concatenate([np.full(window, np.inf), np.where(np.isfinite(values), values, np.inf)])
    return np.lib.stride_tricks.sliding_window_view(padded, window)[: len(values)]


def _sorted_median(ordered: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Median of the first `count` (R,) entries of each sorted row; NaN where there is none."""
    rows = np.arange(len(ordered))
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, ordered.shape[1] - 1)
    middle = (ordered[rows, low] + ordered[rows, high]) / 2
    return np.where(count > 0, middle, np.nan)


def _flags(stream: np.ndarray) -> np.ndarray:
    """Steps of one stream above the median of their window by more than 6 · 1.4826 · MAD of it: bool (S,)."""
    values = _log(stream)
    flags = np.zeros(len(values), dtype=bool)
    # In blocks, so that the windows of a long run never all lie in memory.
    for start in range(SPIKE_FROM, len(values), 1 << 14):
        block = slice(start, min(start + (1 << 14), len(values)))
        ordered = np.sort(_windows(values, SPIKE_WINDOW)[block], axis=1)
        count = np.isfinite(ordered).sum(axis=1)
        median = _sorted_median(ordered, count)
        deviation = np.where(np.isfinite(ordered), np.abs(ordered - median[:, None]), np.inf)
        mad = _sorted_median(np.sort(deviation, axis=1), count)
        limit = median + SPIKE_SCALES * MAD_TO_SIGMA * np.maximum(mad, LEAST_MAD)
        flags[block] = (values[block] > limit) | np.isnan(values[block])
    return flags


def spike_steps(steps: np.ndarray) -> np.ndarray:
    """Steps, counted from 0, at which a spike of the loss or of the gradient norm begins: int64 (K,).

    `steps` (S, 2) holds training loss and gradient norm. From step 32 on a step is flagged where the logarithm of
    either exceeds median + 6 · 1.4826 · max(MAD, 0.001) of the up to 128 steps before it, or is not finite; flags of
    adjacent steps are one spike. Median and MAD, since a spike inside the window moves mean and standard deviation
    so far that it hides the next one; logarithms, since raw streams are skewed and flagged for it.
    """
    steps = np.asarray(steps)
    flagged = _flags(steps[:, 0]) | _flags(steps[:, 1])
    return np.flatnonzero(flagged & ~np.concatenate([[False], flagged[:-1]]))


def spike_rate(steps: np.ndarray) -> Measured:
    """Spikes (`spike_steps`) per 1,000 eligible steps, those from step 32 on."""
    steps = np.asarray(steps)
    eligible = len(steps) - SPIKE_FROM
    if eligible < _LEAST_ELIGIBLE:
        return unknown(f"{count_of(len(steps), 'step')}; a spike rate needs {SPIKE_FROM + _LEAST_ELIGIBLE}")
    if (steps < 0).any():
        return unknown("a negative loss has no logarithm")
    return Measured(1000.0 * len(spike_steps(steps)) / eligible)


def spike_score(steps: np.ndarray) -> Measured:
    """Share of all steps that are spikes in the form of OLMo, a fraction, for comparison with `spike_rate`.

    A step counts where loss or gradient norm, unlogged, exceeds mean + 6 standard deviations of the full window of
    128 steps before it (allenai/OLMo-core, `stability_monitor.py`, "SpikeScore (total)"); flags are not merged.
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
                flagged[block] |= (std >= 1e-10) & (stream[block] > mean + SPIKE_SCALES * std)
    return Measured(float(flagged.mean()))


def _finite_start(stream: np.ndarray) -> np.ndarray:
    """The stream up to its first value that is not finite."""
    stream = np.asarray(stream, dtype=np.float64)
    broken = np.flatnonzero(~np.isfinite(stream))
    return stream[: broken[0]] if len(broken) else stream


def roughness(loss: np.ndarray) -> Measured:
    """Spread of the step-to-step changes of the loss relative to its whole descent, without unit.

    Interquartile range of the first differences of `loss` (S,) ÷ (median of the first five steps − 5th percentile);
    after the dispersion across time of Chan et al. (ICLR 2020), who detrend by differencing and take the IQR. Steps
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


def excess_variation(curve: np.ndarray) -> Measured:
    """Way that a curve (E,) went to and fro, in units of its range: (Σ|Δx| − |x_E − x_1|) / (max − min).

    Zero exactly where the curve is monotone. Meant for the epoch medians of the training loss.
    """
    return _excess_variations(np.asarray(curve, dtype=np.float64)[None])[0]


def _excess_variations(curves: np.ndarray) -> list[Measured]:
    """`excess_variation` of every curve of (T, E)."""
    finite = np.isfinite(curves).all(axis=1).tolist()
    epochs = curves.shape[1]
    if epochs < 3:
        short = unknown(f"{count_of(epochs, 'epoch')}; to and fro needs three")
        return [short if known else unknown("a value is not finite") for known in finite]
    with np.errstate(divide="ignore", invalid="ignore"):
        changes = np.diff(curves, axis=1)
        excess = np.abs(changes).sum(axis=1) - np.abs(curves[:, -1] - curves[:, 0])
        share = excess / np.ptp(curves, axis=1)
    monotone = (changes >= 0).all(axis=1) | (changes <= 0).all(axis=1)
    return [
        Measured(value) if known else unknown("a value is not finite")
        for known, value in zip(finite, np.where(monotone, 0.0, share).tolist(), strict=True)
    ]


def tail_risk(loss: np.ndarray) -> Measured:
    """Mean of the upper 5 % of the step-to-step differences of log loss, in nats of log loss per step.

    The conditional value at risk of the differences, as the short-term risk across time of Chan et al. (ICLR 2020),
    with the sign turned: for a loss the bad side is up. Steps from the first non-finite one on are left out.
    """
    loss = _finite_start(loss)
    if len(loss) <= _LEAST_DIFFERENCES:
        return unknown(f"{count_of(len(loss), 'finite step')}; tail risk needs {_LEAST_DIFFERENCES + 1}")
    if (loss < 0).any():
        return unknown("a negative loss has no logarithm")
    changes = np.sort(np.diff(_log(loss)))
    return Measured(float(changes[-int(np.ceil(0.05 * len(changes))) :].mean()))


def late_oscillation(val_mean_iou: np.ndarray) -> Measured:
    """Standard deviation of val mIoU (E,) about its Theil–Sen line over the last max(5, ⌈0.2·E⌉) epochs; a fraction."""
    curve = np.asarray(val_mean_iou, dtype=np.float64)
    window = max(5, int(np.ceil(0.2 * len(curve) - 1e-9)))
    if len(curve) < window:
        return unknown(f"{count_of(len(curve), 'epoch')}; late oscillation needs {window}")
    late = curve[-window:]
    if not np.isfinite(late).all():
        return unknown("a value of the last epochs is not finite")
    return Measured(float(np.std(late - theil_sen_slope(late) * np.arange(window))))


def censored_headroom(values: np.ndarray) -> np.ndarray:
    """Which values of `lr_headroom` (any shape) are ends of the range that is probed, [2⁻⁶, 2⁸]: bool of that shape.

    Such a value says that the edge of stability lies there or beyond.
    """
    values = np.asarray(values, dtype=np.float64)
    return (values <= LEAST_HEADROOM) | (values >= MOST_HEADROOM)


def stability(steps: np.ndarray, epochs: Mapping[str, np.ndarray], steps_per_epoch: int) -> dict[str, Measured]:
    """Every stability measure of one run, by name.

    `steps` (S, 2) holds training loss and gradient norm of each step, `epochs` the curves `val_loss` and
    `val_mean_iou` (E,), NaN where not finite. Epochs of the training loss are the whole ones; a run that ends inside
    an epoch in a loss that is not finite has `rise` infinity all the same.
    """
    steps = np.asarray(steps, dtype=np.float64).reshape(1, -1, 2)
    return stability_of_runs(steps, {name: np.asarray(curve)[None] for name, curve in epochs.items()}, steps_per_epoch)[
        0
    ]


def stability_of_runs(
    steps: np.ndarray, epochs: Mapping[str, np.ndarray], steps_per_epoch: int
) -> list[dict[str, Measured]]:
    """`stability` of every one of T runs of equal length: `steps` (T, S, 2), `epochs` the curves (T, E).

    What a call costs, of many short runs most of the time, is paid once for all of them.
    """
    steps = np.asarray(steps, dtype=np.float64)
    losses = steps[..., 0]
    curves = {name: np.asarray(curve, dtype=np.float64) for name, curve in epochs.items()}
    medians = epoch_medians(losses, steps_per_epoch)
    ended_well = np.isfinite(losses).all(axis=1).tolist()
    return [
        {
            "rise": rise if well else Measured(np.inf),
            "val_rise": val_rise,
            "spike_rate": spike_rate(run),
            "spike_score": spike_score(run),
            "roughness": roughness(run[:, 0]),
            "excess_variation": variation,
            "tail_risk": tail_risk(run[:, 0]),
            "late_oscillation": late_oscillation(val_mean_iou),
        }
        for run, well, rise, val_rise, variation, val_mean_iou in zip(
            steps,
            ended_well,
            _rises(medians),
            _rises(curves["val_loss"]),
            _excess_variations(medians),
            curves["val_mean_iou"],
            strict=True,
        )
    ]
