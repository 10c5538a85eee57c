"""A trial, its setting, and what names them: keys (hashes of what is computed), folder names, derived seeds."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from ablate.wording import short_path

# Raised whenever code changes the numbers that a trial computes: old records then no longer pass for new ones.
ENGINE_REVISION = 4

SETTINGS_LENGTH = 100


@dataclass(frozen=True)
class Setting:
    """One combination of the grid's levels: what distinguishes the cells of a variant."""

    levels: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The text that names the setting in tables: {"lr": 0.0003} is "lr=3e-4", "as given" where nothing varies."""
        return ", ".join(f"{axis}={level_text(level)}" for axis, level in self.levels.items()) or "as given"

    @property
    def values(self) -> tuple[str, ...]:
        """The texts of the levels alone, in the order of the axes: ("3e-4",)."""
        return tuple(level_text(level) for level in self.levels.values())


@dataclass(frozen=True)
class Trial:
    """One training run: a variant at one setting and one seed, with everything resolved."""

    study: str
    variant: str
    settings: dict[str, Any]
    seed: int
    role: str
    model: dict[str, Any]
    data: dict[str, Any]
    train: dict[str, Any]
    key: str
    # The key of the same trial with fewer epochs, from whose last state this one may go on (`Study.extended`).
    parent: str | None = None

    @property
    def name(self) -> str:
        """The trial's folder name, such as "noskip-lr3e-4-seed0-1a2b3c4d"."""
        return trial_name(self.variant, self.settings, self.seed, self.key)


def canonical(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no blanks, NaN and infinities refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def trial_key(
    seed: int,
    *,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    train: Mapping[str, Any],
    control: str | None = None,
) -> str:
    """Return a key: 64 hex digits over all that decides a trial's numbers, and nothing else.

    `model`, `data` and `train` are complete (defaults filled in), so that writing a default out changes nothing;
    `data` has no location and, for a generated set, its version. `control` is the name of an A/A copy, which is a
    trial of its own although it computes what its original does.
    """
    content = {
        "engine": ENGINE_REVISION,
        "model": model,
        "data": data,
        "train": train,
        "seed": seed,
        "control": control,
    }
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def without_location(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a data set less where it lies: neither a key nor a record knows the place."""
    return {name: value for name, value in data.items() if name != "root"}


def without_folder(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a network with the digest of its weights alone: neither a key nor a record knows the place."""
    return {**model, "weights": model["weights"].rpartition("#")[2]} if _names_weights(model) else dict(model)


def with_folder(model: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Return settings of a network whose folder of weights, in a study file relative to `base`, is absolute."""
    if not _names_weights(model):
        return dict(model)
    home = os.path.expanduser(model["weights"])  # noqa: PTH111 (Path.expanduser raises for an unknown user)
    return {**model, "weights": str(short_path(base / home))}


def _names_weights(model: Mapping[str, Any]) -> bool:
    return isinstance(model.get("weights"), str) and str(model.get("name")).startswith("transformers/")


def derived_seed(*names: str | int) -> int:
    """Return a seed in [2^31, 2^32) that depends on `names` alone, far from what people write."""
    digest = hashlib.sha256(canonical(["seed", *names]).encode()).digest()
    return 2**31 + int.from_bytes(digest[:4], "big") % 2**31


def trial_name(variant: str, settings: Mapping[str, Any], seed: int, key: str) -> str:
    """Return the folder name `<variant>-<axis><value>...-seed<seed>-<8 of the key>`, safe on every file system."""
    parts = "-".join(f"{axis.rsplit('.', 1)[-1]}{level_text(value)}" for axis, value in settings.items())
    if len(parts.encode()) > SETTINGS_LENGTH:
        parts = parts.encode()[:SETTINGS_LENGTH].decode(errors="ignore").rstrip(".-")
    return "-".join([variant, *([parts] if parts else []), f"seed{seed}", key[:8]])


def level_text(value: Any) -> str:
    """Return a level as it stands in names: 0.0003 is "3e-4", true "true", a list "1-2"."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return number_text(value)
    if isinstance(value, list | tuple):
        return "-".join(level_text(item) for item in value)
    if isinstance(value, Mapping):
        return "-".join(f"{'' if key == 'name' else key}{level_text(item)}" for key, item in value.items())
    return re.sub(r"[^\w.+]+", "_", str(value)).strip("._") or "_"


@lru_cache(maxsize=1024, typed=True)
def number_text(value: int | float) -> str:
    """Return the shortest exact text of a finite number: 0.0003 -> 3e-4, 0.05 -> 0.05, 12 -> 12."""
    if isinstance(value, int):
        return str(value)
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    magnitude = exponent + len(digits) - 1
    if digits == (0,):
        return "0"
    if -3 < magnitude < 6:
        return f"{Decimal(repr(value)).normalize():f}"
    mantissa = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if len(digits) > 1 else "")
    return f"{'-' if sign else ''}{mantissa}e{magnitude}"
