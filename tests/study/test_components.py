"""Settings by signature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from ablate.errors import PluginError, StudyError
from ablate.registry import DATASETS, MODELS, Registry
from ablate.study.components import create, find, signature


@pytest.fixture
def models() -> Registry:
    """A registry of models with one known factory."""
    registry = Registry("model", {})

    @registry.register("known")
    def known(
        *,
        in_channels: int,
        num_classes: int,
        depth: int,
        width: Annotated[int, Field(ge=2)] = 8,
        size: tuple[int, int] = (4, 6),
        mode: Literal["a", "b"] = "a",
        weights: list[float] | None = None,
        table: dict[str, int] | None = None,
        file: Path | None = None,
    ) -> dict[str, Any]:
        """A model for tests.

        More about it.
        """
        return {**locals()}

    return registry


def test_context_is_no_setting_and_defaults_are_json(models: Registry) -> None:
    takes = signature(models, "known")
    assert list(takes.parameters) == ["depth", "width", "size", "mode", "weights", "table", "file"]
    assert takes.defaults() == {
        "width": 8,
        "size": [4, 6],
        "mode": "a",
        "weights": None,
        "table": None,
        "file": None,
    }
    assert takes.missing({"width": 3}) == ["depth"]
    assert takes.summary == "A model for tests."


def test_sound_settings_come_back_as_json(models: Registry) -> None:
    values, findings = signature(models, "known").check(
        {"size": [1, 2], "weights": [1, 0.5], "table": {"x": 1}}, ("model",)
    )
    assert findings == []
    assert values == {"size": [1, 2], "weights": [1.0, 0.5], "table": {"x": 1}}


@pytest.mark.parametrize(
    ("setting", "value", "path", "message", "cure"),
    [
        ("width", "8", ("m", "width"), "expected an integer, got the text '8'", "remove the quotes"),
        ("width", True, ("m", "width"), "expected an integer, got true", ""),
        ("width", 1, ("m", "width"), "expected a number >= 2, got 1", ""),
        ("width", None, ("m", "width"), "expected an integer, got nothing", ""),
        ("size", [1, 2.5], ("m", "size", 1), "expected an integer, got 2.5", ""),
        ("mode", "c", ("m", "mode"), "expected 'a' or 'b', got the text 'c'", "choose from a, b"),
        ("weights", [1, "x"], ("m", "weights", 1), "expected a number, got the text 'x'", ""),
        ("weights", 1, ("m", "weights"), "expected a list, got 1", "write [1]"),
        ("table", {"x": "1"}, ("m", "table", "x"), "expected an integer, got the text '1'", "remove the quotes"),
        (
            "widht",
            8,
            ("m", "widht"),
            "expected a setting of the model 'known', got an unknown key",
            "did you mean 'width'?",
        ),
        (
            "in_channels",
            3,
            ("m", "in_channels"),
            "expected a setting of the model 'known', got an unknown key",
            "choose from depth, file, mode, name, size, table, weights, width",
        ),
    ],
)
def test_an_unsound_setting(
    setting: str, value: Any, path: tuple[Any, ...], message: str, cure: str, models: Registry
) -> None:
    _, (finding,) = signature(models, "known").check({setting: value}, ("m",))
    assert (finding.path, finding.message, finding.cure) == (path, message, cure)


def test_what_only_says_where_files_lie(models: Registry) -> None:
    settings = {"depth": 1, "file": "a/b", "root": "c"}
    assert signature(models, "known").without_locations(settings) == {"depth": 1}


def test_a_component_is_made_with_the_types_of_its_signature(models: Registry) -> None:
    made = create(
        models, {"name": "known", "depth": 2, "size": [1, 2], "file": "x"}, in_channels=3, num_classes=5, base=1
    )
    assert (made["size"], made["file"], made["in_channels"], made["num_classes"]) == ((1, 2), Path("x"), 3, 5)
    with pytest.raises(StudyError, match=r"model\.depth: expected a value, got none"):
        create(models, {"name": "known"}, in_channels=3, num_classes=5)
    with pytest.raises(StudyError, match=r"model\.width: expected an integer, got the text 'w'"):
        create(models, {"name": "known", "depth": 1, "width": "w"}, in_channels=3, num_classes=5)


def test_a_context_that_a_factory_does_not_take_is_left_out() -> None:
    registry = Registry("model", {})

    @registry.register("fixed")
    def fixed(*, num_classes: int) -> int:
        return num_classes

    assert create(registry, {"name": "fixed"}, in_channels=3, num_classes=5) == 5


def test_what_is_no_settings_signature() -> None:
    registry = Registry("model", {})

    @registry.register("positional")
    def positional(width: int = 3) -> int:
        return width

    @registry.register("bare")
    def bare(*, width=3):  # type: ignore[no-untyped-def]
        return width

    @registry.register("strange")
    def strange(*, width: Registry | None = None) -> object:
        return width

    @registry.register("reserved")
    def reserved(*, train: int = 3) -> int:
        return train

    for name, message in {
        "positional": "expected keyword-only parameters, got 'width'; write \\*, before",
        "bare": "expected an annotation on 'width', got none; write, for example, width: int = 4",
        "strange": "the setting 'width' is not of a type that a study file can say",
        "reserved": "expected another name than 'train', a key of study files",
    }.items():
        with pytest.raises(PluginError, match=rf"test_components\.py:\d+: the model '{name}': {message}"):
            signature(registry, name)


def test_every_built_in_component_is_described_by_its_signature() -> None:
    # Those of transformers are among them where another test has named one.
    own = [name for name in MODELS if MODELS.source(name) == "ablate" and not name.startswith("transformers/")]
    assert own == ["monai/attention_unet", "monai/basic_unet", "monai/segresnet", "monai/unet", "unet"]
    assert not any(signature(MODELS, name).missing({}) for name in own)
    required = {name: signature(DATASETS, name).missing({}) for name in ("street", "camvid", "folder")}
    assert required == {"street": [], "camvid": ["root"], "folder": ["root", "images", "masks", "classes"]}
    assert signature(DATASETS, "street").version is not None
    assert signature(DATASETS, "camvid").version is None


def test_an_unknown_name_is_a_finding() -> None:
    takes, (finding,) = find(MODELS, "unett", ("model", "name"))
    assert takes is None
    assert finding.message == "expected a registered model, got the text 'unett'"
    assert finding.cure == "did you mean 'unet'?"
