"""The masks of a split at their own size, for scoring there: decoded once, kept in the cache as one row of pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from ablate.data import cache
from ablate.data.files.decode import Unusable, mask_codes, read_picture
from ablate.data.files.labels import Labels
from ablate.data.files.sources import MASKS, Pair, in_threads, read_bytes
from ablate.errors import DataError


def native_masks(
    root: Path, pairs: Sequence[Pair], labels: Labels, files: Mapping[str, str], fingerprint: str
) -> list[np.ndarray]:
    """Class indices of each pair's mask, uint8 (h, w) at the size that is stored, in the order of `pairs`.

    `files` are the SHA-256 digests that the data set's `fingerprint` is made of: a mask that has other bytes now is
    refused with `DataError`, so that what is scored is what was fingerprinted. Every label has a meaning, for that
    was checked when the data set was assembled.
    """
    key = hashlib.sha256(f"native/{fingerprint}/{PIL.__version__}".encode()).hexdigest()

    def build(allocate: cache.Allocate) -> dict[str, Any]:
        masks = in_threads(partial(_decoded, root, labels, files), pairs)
        row = allocate("masks", (sum(mask.size for mask in masks),))
        begin = 0
        for mask in masks:
            row[begin : begin + mask.size] = mask.ravel()
            begin += mask.size
        return {"sizes": [list(mask.shape) for mask in masks]}

    arrays, document = cache.fill(key, build)
    masks, begin = [], 0
    for height, width in document["sizes"]:
        masks.append(arrays["masks"][begin : begin + height * width].reshape(height, width))
        begin += height * width
    return masks


def _decoded(root: Path, labels: Labels, files: Mapping[str, str], pair: Pair) -> np.ndarray:
    try:
        data = read_bytes(root, pair.mask)
        if hashlib.sha256(data).hexdigest() != files[pair.mask]:
            raise Unusable("that changed while the study was read", "run again")
        return labels.apply(mask_codes(read_picture(data), labels))
    except Unusable as error:
        raise DataError(f"a mask {error.fault}", file=pair.mask, key=MASKS, cure=error.cure) from None
