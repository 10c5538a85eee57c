"""The plan as data, and the schema of study files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ablate.errors import StudyError
from ablate.run.plan.describe import Shape, describe, describe_variants
from ablate.study.jsonschema import json_schema
from tests.study.study_files import GOOD, read

SHAPE = Shape(in_channels=3, num_classes=11, size=(32, 48), images={"train": 8, "val": 4, "test": 4})


def test_parameters_flops_and_modules_of_every_variant(tmp_path: Path) -> None:
    report = describe(read(tmp_path), SHAPE)
    unet, noskip = report.variants
    # By hand: 3x3 convolutions with batch norm (2 parameters a channel) 3-4-4, 4-8-8 | 8-16-16 | 16-8-8, 8-4-4,
    # transposed 2x2 ones with bias 16-8, 8-4, and the head 4-11 with bias.
    encoder = 9 * (3 * 4 + 4 * 4 + 4 * 8 + 8 * 8) + 2 * (4 + 4 + 8 + 8)
    bottom = 9 * (8 * 16 + 16 * 16) + 2 * (16 + 16)
    up = 4 * (16 * 8 + 8 * 4) + 8 + 4
    decoder = 9 * (16 * 8 + 8 * 8 + 8 * 4 + 4 * 4) + 2 * (8 + 8 + 4 + 4)
    head = 4 * 11 + 11
    assert unet.parameters == encoder + bottom + up + decoder + head
    assert noskip.parameters == unet.parameters - 9 * (8 * 8 + 4 * 4)
    # Without the skips the first convolution of each decoder has half the channels: 2 FLOPs for a multiply-add.
    assert unet.forward_flops - noskip.forward_flops == 2 * 9 * (8 * 8 * 16 * 24 + 4 * 4 * 32 * 48)
    assert (unet.added, unet.removed) == ([], [])
    assert any("skip" in line for line in noskip.removed)
    # 2 rates, 2 seeds, 2 epochs: three forward passes' worth a training image, one a val image, and the test once.
    forward = unet.forward_flops + noskip.forward_flops
    assert report.train_flops == 4 * forward * (2 * (3 * 8 + 4) + 4)


def test_what_run_json_holds_of_the_variants(tmp_path: Path) -> None:
    variants = {name: item.to_json() for name, item in describe_variants(read(tmp_path), SHAPE, {}).items()}
    assert set(variants["noskip"]) == {
        "model",
        "differs",
        "parameters",
        "forward_flops",
        "train_images",
        "modules",
        "control",
    }
    assert variants["noskip"]["differs"] == {"skip": ["concat", "none"]}
    assert json.loads(json.dumps(variants)) == variants


def test_a_baseline_that_is_not_the_first_is_still_what_others_differ_from(tmp_path: Path) -> None:
    report = describe(read(tmp_path, GOOD + "baseline: noskip\n"), SHAPE)
    assert [item.name for item in report.variants] == ["unet", "noskip"]
    assert any("skip" in line for line in report.variants[0].added)
    assert report.variants[0].differs == {"skip": ("none", "concat")}


def test_building_a_plan_leaves_the_random_state_alone(tmp_path: Path) -> None:
    study = read(tmp_path)
    before = torch.get_rng_state()
    describe(study, SHAPE)
    assert torch.equal(torch.get_rng_state(), before)


def test_notes_say_what_a_reader_would_object_to(tmp_path: Path) -> None:
    own = GOOD.replace("{skip: none}", "{skip: none, train: {weight_decay: 0.1}}").replace("seeds: 2", "seeds: 1")
    notes = describe(read(tmp_path, own.replace("grid: {lr: [1e-3, 3e-4]}\n", "")), SHAPE).notes
    assert [note.split(":")[0] for note in notes] == [
        "noskip also differs in train.weight_decay",
        "one seed",
        "one learning rate for all variants",
    ]


def test_settings_no_network_can_be_built_from_name_their_line(tmp_path: Path) -> None:
    text = GOOD.replace("depth: 2", "depth: 1").replace("{skip: none}", "{skip: attention}")
    with pytest.raises(StudyError, match=r"study\.yaml:3: model\.depth: variant 'noskip': .* has no gate"):
        describe(read(tmp_path, text), SHAPE)


def test_the_schema_knows_every_key_and_every_built_in_setting() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert set(schema["required"]) == {"study", "data"}
    titles = {item["title"]: item for item in schema["properties"]["data"]["anyOf"]}
    assert titles["street"]["properties"]["train"]["default"] == 200
    assert titles["camvid"]["required"] == ["name", "root"]
    assert titles["camvid"]["properties"]["split"]["enum"] == ["segnet", "sequence"]
    models = {item["title"]: item for item in schema["properties"]["model"]["anyOf"]}
    assert models["unet"]["properties"]["skip"]["enum"] == ["concat", "none", "attention"]
    assert "in_channels" not in models["unet"]["properties"]
    assert schema["$defs"]["VariantSpec"]["properties"]["block"]["enum"] == ["plain", "residual"]
    assert "lr" in schema["properties"]["grid"]["propertyNames"]["anyOf"][0]["enum"]
    assert all(
        "description" in item for item in schema["$defs"]["TrainSpec"]["properties"].values() if "$ref" not in item
    )


def test_every_reference_of_the_schema_is_defined() -> None:
    text = json.dumps(json_schema())
    names = {part.split('"')[0] for part in text.split("#/$defs/")[1:]}
    assert names and names <= set(json_schema()["$defs"])
