"""Networks of MONAI and of transformers by name: built from settings, their faults one line at its place."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from ablate.data.dataset import load_dataset
from ablate.errors import StudyError
from ablate.records.record import Record
from ablate.registry import MODELS, Registry
from ablate.run.tracker import settings
from ablate.study.components import create, find, signature
from ablate.study.reader import dump_study
from ablate.study.trial import Trial
from ablate.testing import check
from ablate.train.outcome import ModelCard
from tests.conftest import missing
from tests.study.study_files import GOOD, read

SEGFORMER: dict[str, Any] = {
    "name": "transformers/segformer",
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
    "decoder_hidden_size": 16,
}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
CONVNEXT = {"model_type": "convnext", "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "out_features": STAGES}
SWIN = {
    "model_type": "swin",
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 4],
    "window_size": 4,
    "out_features": STAGES,
}
BEIT = {
    "model_type": "beit",
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "use_relative_position_bias": True,
    "add_fpn": True,
    "out_indices": [1, 2, 3, 4],
}
UPERNET: dict[str, Any] = {"name": "transformers/upernet", "hidden_size": 16, "backbone_config": CONVNEXT}


@pytest.fixture
def library() -> Any:
    """The library transformers; what the tests of it need."""
    try:
        import transformers
    except ModuleNotFoundError:
        missing("transformers is not installed")
    return transformers


@pytest.mark.parametrize("name", ["attention_unet", "basic_unet", "segresnet", "unet"])
def test_networks_of_monai_by_name(name: str) -> None:
    try:
        model = create(MODELS, {"name": f"monai/{name}"}, in_channels=3, num_classes=5)
    except StudyError:
        missing("MONAI is not installed")
    assert model(torch.zeros(2, 3, 32, 48)).shape == (2, 5, 32, 48)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("component", [SEGFORMER, UPERNET], ids=lambda item: item["name"])
def test_logits_of_a_network_of_transformers_have_the_size_of_images_of_any_channels(component: dict[str, Any]) -> None:
    model = create(MODELS, component, in_channels=4, num_classes=5)
    assert model(torch.zeros(2, 4, 42, 56)).shape == (2, 5, 42, 56)
    settings = {name: value for name, value in component.items() if name != "name"}
    assert signature(MODELS, component["name"]).check(settings, ("model",)) == (settings, [])


def test_every_network_registered_for_segmentation_has_a_name_and_its_configurations_settings(library: Any) -> None:
    for kind in library.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING:
        takes = signature(MODELS, f"transformers/{kind.model_type}").parameters
        assert "weights" in takes and not {"num_channels", "num_labels", "use_auxiliary_head"} & takes.keys()
    defaults = signature(MODELS, "transformers/segformer").defaults()
    assert defaults["depths"] == list(library.SegformerConfig().depths)


@pytest.mark.usefixtures("library")
def test_a_network_of_transformers_trains_again_to_the_same_and_resumes() -> None:
    check("model", **SEGFORMER)


def test_the_encoder_begins_with_the_weights_of_a_folder(library: Any, tmp_path: Path) -> None:
    settings = {name: value for name, value in SEGFORMER.items() if name != "name"}
    torch.manual_seed(1)
    saved = library.SegformerForImageClassification(library.SegformerConfig(**settings))
    saved.save_pretrained(tmp_path)
    models = []
    for weights in (None, str(tmp_path)):
        torch.manual_seed(2)
        models.append(create(MODELS, SEGFORMER | {"weights": weights}, in_channels=3, num_classes=5).model)
    fresh, loaded = models
    for name, value in saved.segformer.state_dict().items():
        assert torch.equal(loaded.segformer.state_dict()[name], value), name
    assert torch.equal(loaded.decode_head.classifier.weight, fresh.decode_head.classifier.weight)
    # What is resolved says which weights these are, so that others are other trials.
    kept, _ = signature(MODELS, SEGFORMER["name"]).parameters["weights"].check(str(tmp_path), ("model", "weights"))
    assert kept.startswith(f"{tmp_path}#")
    with pytest.raises(
        StudyError, match=r"model.weights: .* fit 107 of the encoder's 108 tensors, not stages.0.patch_emb"
    ):
        create(MODELS, SEGFORMER | {"weights": kept}, in_channels=4, num_classes=5)
    (tmp_path / "more.safetensors").write_bytes(b"")
    (tmp_path / "model.safetensors").write_bytes(b"other")
    with pytest.raises(
        StudyError, match=r"expected in '.*' the weights of SHA-256 [0-9a-f]{16}, got .*; put them back"
    ):
        create(MODELS, SEGFORMER | {"weights": kept}, in_channels=3, num_classes=5)


@pytest.mark.parametrize(
    ("backbone", "kind", "wider"),
    [
        (CONVNEXT, "ConvNext", {"hidden_sizes": [8, 16, 24, 40]}),
        (SWIN, "Swin", {"embed_dim": 16}),
        (BEIT, "Beit", {"hidden_size": 32}),
    ],
    ids=lambda item: item.get("model_type", "") if isinstance(item, dict) else item,
)
def test_the_backbone_begins_with_the_weights_of_a_folder_that_are_all_its_own(
    backbone: dict[str, Any], kind: str, wider: dict[str, Any], library: Any, tmp_path: Path
) -> None:
    plain = {name: value for name, value in backbone.items() if name not in ("model_type", "add_fpn")}
    segformer = {name: value for name, value in SEGFORMER.items() if name != "name"}
    encoder, config = getattr(library, f"{kind}Model"), getattr(library, f"{kind}Config")
    saved = {
        "fit": encoder(config(**plain)),
        "wider": encoder(config(**plain | wider)),
        "other": library.SegformerModel(library.SegformerConfig(**segformer)),
    }
    for folder, network in saved.items():
        network.save_pretrained(tmp_path / folder)
    component = UPERNET | {"backbone_config": backbone}
    made = create(MODELS, component | {"weights": str(tmp_path / "fit")}, in_channels=3, num_classes=5).model.backbone
    # Some backbones hold the plain network under its name, such as `swin.`, and add norms and scales of their stages.
    values = {name.removeprefix(f"{made.base_model_prefix}."): value for name, value in made.state_dict().items()}
    shared = saved["fit"].state_dict().keys() & values.keys()
    assert len(shared) > 50 and all(torch.equal(values[name], saved["fit"].state_dict()[name]) for name in shared)
    assert all(name.startswith(("hidden_states_norms.", "fpn")) for name in values.keys() - shared)
    for folder in ("wider", "other"):
        with pytest.raises(StudyError, match=rf"weights: the weights in '.*{folder}' fit \d+ of the encoder's \d+ ten"):
            create(MODELS, component | {"weights": str(tmp_path / folder)}, in_channels=3, num_classes=5)


@pytest.mark.usefixtures("library")
def test_neither_keys_nor_records_nor_cards_know_where_weights_lie(tmp_path: Path) -> None:
    def planned(folder: str, content: bytes) -> Trial:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors").write_bytes(content)
        model = f"model: {{name: transformers/segformer, weights: {folder}}}"
        text = GOOD.replace("model: {name: unet, width: 4, depth: 2}", model)
        study = read(tmp_path, text.replace("skip: none", "depths: [1, 1, 1, 1]"))
        # From the study file, as all paths in it are, wherever `ablate` runs; what is resolved keeps it so.
        assert f"weights: {folder}#" in dump_study(study) and str(tmp_path) not in dump_study(study)
        return study.trials()[0]

    here, moved, other = planned("here", b"some"), planned("moved", b"some"), planned("other", b"more")
    assert here.model != moved.model and here.key == moved.key != other.key
    digest = hashlib.sha256(b"some").hexdigest()[:16]
    assert here.model["weights"] == f"{tmp_path / 'here'}#{digest}" and settings(here)["model"]["weights"] == digest
    assert Record.of(moved, "complete").model["weights"] == digest
    card = ModelCard.of(
        moved, load_dataset("street", {"size": [32, 48], "train": 2, "val": 1, "test": 1}, base=tmp_path)
    )
    assert "weights" not in card.model and card.model["depths"] == moved.model["depths"]


@pytest.mark.usefixtures("library")
def test_weights_are_read_once_for_their_digest_and_again_when_they_change(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read_times: list[Any] = []
    real = hashlib.file_digest

    def counted(*given: Any) -> Any:
        read_times.append(given)
        return real(*given)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    takes, file = signature(MODELS, SEGFORMER["name"]).parameters["weights"], tmp_path / "model.safetensors"
    for content in (b"some", b"other"):
        file.write_bytes(content)
        for _ in range(3):
            kept, _ = takes.check(str(tmp_path), ("model", "weights"))
            assert kept == f"{tmp_path}#{hashlib.sha256(content).hexdigest()[:16]}"
    assert len(read_times) == 2


@pytest.mark.usefixtures("library")
def test_a_folder_of_an_adapter_is_refused_as_it_may_lead_to_other_weights(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"some")
    takes = signature(MODELS, SEGFORMER["name"]).parameters["weights"]
    _, (finding,) = takes.check(str(tmp_path), ("model", "weights"))
    assert finding.message.startswith("expected the weights of a network, got those of an adapter in")


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("component", "said"),
    [
        (SEGFORMER | {"hidden_sizes": [8, 16]}, "SegformerConfig do not go together (IndexError: list index out of"),
        (SEGFORMER | {"hidden_act": "bogus"}, "SegformerConfig do not go together (KeyError: 'bogus')"),
        ({"name": "transformers/sapiens2"}, "Sapiens2Config do not go together (TypeError: 'NoneType' object"),
        (UPERNET | {"backbone_config": SWIN | {"depths": "three"}}, "UperNetConfig do not go together (Strict"),
    ],
)
def test_settings_that_transformers_cannot_build_a_network_of_are_one_line(
    component: dict[str, Any], said: str
) -> None:
    with pytest.raises(StudyError) as caught:
        create(MODELS, component, in_channels=3, num_classes=5)
    (problem,) = caught.value.problems
    assert problem.key == "model" and f"these settings of {said}" in problem.message and "\n" not in problem.message
    assert "give lists one value a stage" in problem.cure


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            "{name: transformers/segfomer}",
            "model.name: expected a registered model, got the text 'transformers/segfomer'; did",
        ),
        ("{name: transformers/segformer, depth: 3}", "model.depth: expected a setting of the model 'transformers/segf"),
        ("{name: transformers/segformer, depths: three}", "model.depths: expected a list"),
        (
            "{name: transformers/segformer, weights: no}",
            "model.weights: expected a folder with weights (.safetensors), got '{folder}/no'; nothing is downloaded",
        ),
        (
            "{name: transformers/segformer, weights: ~no-such-user/segformer}",
            "model.weights: expected a folder with weights (.safetensors), got '{folder}/~no-such-user/segformer';",
        ),
        (
            "{name: transformers/upernet, backbone_config: {model_type: swinn}}",
            "model.backbone_config: expected the model_type of a backbone, got 'swinn'; did you mean 'swin'?",
        ),
        (
            "{name: transformers/upernet, backbone_config: {model_type: swin, depth: [1]}}",
            "model.backbone_config: expected settings of 'swin', got 'depth'; did you mean 'depths'?",
        ),
        (
            "{name: transformers/upernet, backbone_config: {model_type: swin}}",
            "model.backbone_config: expected stages to go on from; add out_features: [stage1,",
        ),
    ],
)
def test_what_transformers_does_not_know_is_one_line_at_its_place(model: str, said: str, tmp_path: Path) -> None:
    text = GOOD.replace("model: {name: unet, width: 4, depth: 2}", f"model: {model}").replace("{skip: none}", "{}")
    with pytest.raises(StudyError) as caught:
        read(tmp_path, text)
    assert f"study.yaml:3: {said.format(folder=tmp_path)}" in str(caught.value)


def test_a_library_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    registry = Registry("model", {}, families={"transformers": "ablate.models.foreign:transformers"})
    takes, (finding,) = find(registry, "transformers/segformer", ("model", "name"))
    assert takes is None and finding.message == "this network is of the library transformers, which is not installed"
    assert finding.cure.startswith("pip install 'transformers>=")
