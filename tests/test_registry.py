"""Names to factories."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ablate.errors import PluginError, StudyError
from ablate.registry import DATASETS, FIGURES, LOSSES, MODELS, OPTIMIZERS, Registry


def test_a_registered_factory_is_found_and_listed() -> None:
    registry = Registry("model", {})

    @registry.register("mine")
    def mine() -> int:
        return 3

    assert registry.get("mine") is mine
    assert (list(registry), "mine" in registry, "other" in registry) == (["mine"], True, False)
    assert registry.source("mine").startswith(f"{Path(__file__)}:")


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(StudyError, match=r"^unknown optimizer 'adamm'; did you mean 'adam'\?$"):
        OPTIMIZERS.get("adamm")
    with pytest.raises(StudyError, match=r"^unknown kind 'any'; one of your own is loaded by --plugin FILE.py$"):
        Registry("kind", {}).get("any")


def test_a_name_is_taken_once_and_both_places_are_named() -> None:
    registry = Registry("loss", {"known": "json:loads"})

    def first() -> None: ...

    def second() -> None: ...

    registry.register("mine")(first)
    registry.register("mine")(first)  # the same file loaded again
    with pytest.raises(PluginError, match=r"the loss 'mine' is registered twice: in .*:\d+ and in .*:\d+; give one"):
        registry.register("mine")(second)
    with pytest.raises(PluginError, match="'known' is registered twice: in ablate and in"):
        registry.register("known")(second)


def test_built_in_components_are_imported_when_they_are_used() -> None:
    registry = Registry("model", {"late": "wave:open"})
    sys.modules.pop("wave", None)
    assert "late" in registry
    assert "wave" not in sys.modules
    assert registry.get("late") is sys.modules["wave"].open
    assert registry.source("late") == "ablate"


@pytest.mark.parametrize("registry", [MODELS, DATASETS, LOSSES, OPTIMIZERS, FIGURES], ids=lambda item: item.kind)
def test_every_built_in_name_leads_to_a_factory(registry: Registry) -> None:
    for name in registry:
        assert callable(registry.get(name))
