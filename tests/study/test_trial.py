"""Keys, derived seeds and folder names."""

from __future__ import annotations

from typing import Any

import pytest

from ablate.study.trial import canonical, derived_seed, level_text, number_text, trial_key, trial_name

PARTS: dict[str, Any] = {
    "model": {"name": "unet", "width": 8},
    "data": {"name": "street"},
    "train": {"lr": 0.001},
    "control": None,
}


def key(**changed: Any) -> str:
    parts = PARTS | {"seed": 0} | changed
    return trial_key(parts.pop("seed"), **parts)


def test_the_key_of_known_content_never_changes() -> None:
    # sha256 of {"control":null,"data":{"name":"street"},"engine":4,"model":{"name":"unet","width":8},"seed":0,
    # "train":{"lr":0.001}}, computed with sha256sum
    assert key() == "5494b4ab16c96d4f4a1f67a43dc3c1f15f601863fc6a753cad179b9365fdf627"


def test_the_order_of_settings_is_not_in_the_key() -> None:
    assert key(model={"width": 8, "name": "unet"}) == key()


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"name": "unet", "width": 9}},
        {"data": {"name": "camvid"}},
        {"train": {"lr": 0.0010000000000000002}},
        {"seed": 1},
        {"control": "again"},
    ],
)
def test_whatever_decides_the_numbers_is_in_the_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


def test_canonical_text_refuses_what_is_no_number() -> None:
    assert canonical({"b": [1, 2.5], "a": None}) == '{"a":null,"b":[1,2.5]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"a": float("nan")})


def test_derived_seeds_are_seeds_far_from_written_ones_and_all_different() -> None:
    seeds = [derived_seed("control", name, seed) for name in ("again", "twice") for seed in range(100)]
    assert len(set(seeds)) == 200
    assert all(2**31 <= seed < 2**32 for seed in seeds)
    assert derived_seed("control", "again", 0) == derived_seed("control", "again", 0)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0003, "3e-4"),
        (0.001, "1e-3"),
        (0.00015, "1.5e-4"),
        (0.05, "0.05"),
        (0.5, "0.5"),
        (2.0, "2"),
        (1e-10, "1e-10"),
        (1e20, "1e20"),
        (123456.0, "123456"),
        (-0.0003, "-3e-4"),
        (0.0, "0"),
        (12, "12"),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_numbers_in_names_are_short_and_exact(number: float, text: str) -> None:
    assert number_text(number) == text
    assert float(text) == number


def test_other_levels_in_names() -> None:
    assert [level_text(value) for value in (None, True, "adamw", [96, 128], "a/b c")] == [
        "none",
        "true",
        "adamw",
        "96-128",
        "a_b_c",
    ]


def test_the_folder_name_of_a_trial() -> None:
    key = "1a2b3c4d" + "0" * 56
    assert trial_name("noskip", {"lr": 0.0003}, 0, key) == "noskip-lr3e-4-seed0-1a2b3c4d"
    assert trial_name("unet", {}, 7, key) == "unet-seed7-1a2b3c4d"
    assert trial_name("unet", {"model.width": 8, "augment.flip": True}, 0, key) == "unet-width8-fliptrue-seed0-1a2b3c4d"
    assert len(trial_name("v" * 64, {"optimizer": "x" * 500}, 2**32 - 1, key)) < 200


def test_a_folder_name_fits_every_file_system_whatever_the_script() -> None:
    settings = {"optimizer": "漢" * 90, "lr": 3e-4}
    name = trial_name("漢" * 42, settings, 2**32 - 1, "0" * 64)
    assert len(name.encode()) <= 255 and name.endswith("-seed4294967295-00000000")
