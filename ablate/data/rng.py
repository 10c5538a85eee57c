"""Random numbers as pure functions of their coordinates: no generator has a state that a resumed trial would need.

A value is a hash of (stream, seed, epoch, sample, position). SHA-256 turns the first three into a 64-bit base; from
there the vectorised finaliser of splitmix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number
generators", variant 13 of Stafford's mixers) is applied to the base and the sample, and once more to the result and
the position: each sample has a splitmix64 stream of its own, a generator that passes BigCrush. Integers only until
the last step, so the values are the same on every machine.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, the increment of splitmix64
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def derive(seed: int, *names: str | int) -> int:
    """Return a seed in [0, 2^63) for the place that `names` spell, such as ``derive(0, "model", epoch)``.

    The coordinates are hashed by SHA-256, so that neighbouring seeds share nothing; 1 and "1" are different names.
    """
    return _digest(seed, *names) >> 1


def uniform(stream: str, seed: int, epoch: int, samples: np.ndarray, n: int) -> np.ndarray:
    """Return `n` uniform values in [0, 1) for each sample: float64 (len(samples), n), with 53 random bits each.

    `samples` are integers >= 0 (indices into the data set). A sample's row does not depend on which other samples
    are asked for, nor on their order; its first values do not depend on `n`.
    """
    base = np.uint64(_digest(seed, "uniform", stream, epoch))
    samples = np.asarray(samples, dtype=np.uint64).reshape(-1, 1)
    positions = np.arange(1, n + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        rows = _mix(base + (samples + np.uint64(1)) * _GOLDEN)
        bits = _mix(rows + positions * _GOLDEN)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """Return the order in which the `n` training samples are visited in `epoch`: int64 (n,).

    The order of n random 64-bit keys; a tie (less likely than n^2 / 2^65) keeps the smaller index first.
    """
    base = np.uint64(_digest(seed, "permutation", epoch))
    with np.errstate(over="ignore"):
        keys = _mix(base + np.arange(1, n + 1, dtype=np.uint64) * _GOLDEN)
    return np.argsort(keys, kind="stable").astype(np.int64)


def _digest(*names: str | int) -> int:
    text = json.dumps(names, ensure_ascii=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _mix(value: np.ndarray) -> np.ndarray:
    """Apply the output function of splitmix64."""
    value = (value ^ (value >> np.uint64(30))) * _MIX1
    value = (value ^ (value >> np.uint64(27))) * _MIX2
    return value ^ (value >> np.uint64(31))
