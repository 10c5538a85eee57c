"""What README and documentation show works: studies, commands, Python, the notebook, generated pages."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer.main
from PIL import Image

import ablate
from ablate.cli import app
from ablate.data.files import folder
from ablate.measure.segmentation import image_counts, iou, mean_iou
from ablate.plugins import load_plugins
from ablate.registry import LOSSES, MODELS
from ablate.run.plan.dry import load_data
from ablate.study.components import bound, signature
from ablate.study.reader import read_study
from ablate.testing import check
from ablate.train.losses import Loss, cross_entropy, multilabel_loss
from docs.hooks import PAGES, commands_page, frames_page, study_page
from tests.conftest import ROOT, missing
from tests.data.pictures import cells, save, save_shapes

pytestmark = pytest.mark.usefixtures("registered")
WRITTEN = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
Block = tuple[Path, str]


def blocks(language: str) -> list[Any]:
    """The blocks of a language in the README and the documentation, with where they stand."""
    found = []
    for path in WRITTEN:
        for number, match in enumerate(re.finditer(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)):
            found.append(pytest.param(match[1], id=f"{path.name}-{number}"))
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the images that the examples name."""
    for number in range(20):
        image, mask = cells(number, (32, 32))
        save(tmp_path / "membrane" / "train" / "image" / f"{number}_0.png", image)
        save(tmp_path / "membrane" / "train" / "label" / f"{number}_0.png", mask)
    save_shapes(tmp_path / "shapes", 20)
    return tmp_path


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_study_that_is_shown_is_one(text: str, place: Path) -> None:
    if "two_convolutions" in text and "two_convolutions" not in MODELS:
        python = (ROOT / "docs" / "own-components.md").read_text()
        match = re.search(r"^```python\n(.*?)^```", python, re.M | re.S)
        assert match is not None
        (place / "my_parts.py").write_text(match[1])
        load_plugins([place / "my_parts.py"])
    if "transformers/" in text and find_spec("transformers") is None:
        missing("transformers is not installed, whose network the study names")
    if not text.startswith("study:"):  # a part of one, shown by itself
        variants = "" if "factors:" in text else "variants: {unet: {}, noskip: {skip: none}}\n"
        text = f"study: part\ndata: {{name: street}}\n{variants}{text}"
    path = place / "study.yaml"
    path.write_text(text)
    study = read_study(path)
    if study.data["name"] == "folder":
        data = load_data(study)
        assert len(data.splits["train"]) and np.unique(data.splits["train"].masks).size == (4 if data.multilabel else 2)


def commands() -> list[Any]:
    lines = [line for block in blocks("sh") for line in block.values[0].splitlines()]
    return sorted({line.partition("#")[0].strip() for line in lines if re.match(r"(\.venv/bin/)?ablate ", line)})


@pytest.mark.parametrize("line", commands())
def test_a_command_that_is_shown_can_be_called(line: str) -> None:
    _, name, *words = shlex.split(line)
    group: Any = typer.main.get_command(app)
    group.commands[name].make_context(name, words)  # raises for what is no option


@pytest.mark.parametrize("text", blocks("python"))
def test_python_that_is_shown_names_what_there_is(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ablate":
            assert hasattr(ablate, node.attr), node.attr


def load_shown(name: str, folder: Path) -> None:
    """Load the plugin that the page on ablations shows for a registered name."""
    python = (ROOT / "docs" / "anything.md").read_text()
    text = next(block for block in re.findall(r"^```python\n(.*?)^```", python, re.M | re.S) if f'"{name}"' in block)
    (folder / f"{name}.py").write_text(text)
    load_plugins([folder / f"{name}.py"], entry_points=False)


class Rows(list[Any]):
    """Made-up pairs of an image and a mask, as data sets of other libraries give them."""

    def __init__(self, count: int, _root: Any = None, *, image_set: str = "", named: bool = False) -> None:
        pairs = [cells(count + len(image_set) + number, (32, 32)) for number in range(count)]
        pictures = [(Image.fromarray(image), Image.fromarray(mask // 255)) for image, mask in pairs]
        super().__init__({"image": image, "label": mask} if named else (image, mask) for image, mask in pictures)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("hugging_face", {"classes": ["ground", "cell"], "size": [32, 32]}), ("voc", {"size": [32, 32]})],
)
def test_data_sets_of_other_libraries_are_plugins(
    name: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stand-ins with the interface of the libraries, which need not be installed.
    stored = {part: Rows(6 + len(part), named=True) for part in ("train", "validation", "test")}
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_from_disk=lambda _path: stored))
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace())
    vision = SimpleNamespace(VOCSegmentation=partial(Rows, 6))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", vision)
    load_shown(name, tmp_path)
    check("dataset", name, root=".", **settings)


def test_networks_of_a_library_that_needs_torchvision_are_a_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch import nn

    # A stand-in with the interface of the library, which cannot be installed here.
    def create_model(
        arch: str,
        encoder_name: str = "resnet34",
        encoder_weights: str | None = "imagenet",
        in_channels: int = 3,
        classes: int = 1,
    ) -> nn.Module:
        assert (arch, encoder_name, encoder_weights) == ("fpn", "resnet34", None)
        return nn.Conv2d(in_channels, classes, 3, padding=1)

    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", SimpleNamespace(create_model=create_model))
    load_shown("smp", tmp_path)
    check("model", "smp", arch="fpn")


def test_the_loss_that_is_shown_is_one_less_the_iou_of_hard_predictions(tmp_path: Path) -> None:
    import torch

    load_shown("lovasz_softmax", tmp_path)
    check("loss", "lovasz_softmax")
    generator = torch.Generator().manual_seed(0)
    target, guess = (torch.randint(0, 3, (2, 5, 6), generator=generator) for _ in range(2))
    target[0, :2] = 255
    logits = 100 * torch.nn.functional.one_hot(guess, 4).permute(0, 3, 1, 2).float()
    found = Loss(bound(LOSSES, "lovasz_softmax"), 4, 255)(logits, target)  # of the fourth class there is no pixel
    counts = image_counts(guess.numpy(), target.numpy(), 4)
    assert float(found) == pytest.approx(1 - float(mean_iou(counts, axis=0)), abs=1e-5)
    weighted = Loss(bound(LOSSES, "lovasz_softmax"), 4, 255, torch.tensor([0.0, 1.0, 0.0, 5.0]))(logits, target)
    assert float(weighted) == pytest.approx(1 - float(iou(counts.sum(0))[1]), abs=1e-5)


def test_the_loss_of_several_classes_that_is_shown_is_the_binary_cross_entropy_at_gamma_0(tmp_path: Path) -> None:
    import torch

    load_shown("focal_sigmoid", tmp_path)
    check("loss", "focal_sigmoid")
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn((2, 3, 5, 6), generator=generator), torch.randint(0, 8, (2, 5, 6), generator=generator)
    target[0, :2] = 255
    plain = bound(LOSSES, {"name": "focal_sigmoid", "gamma": 0.0})
    for weights in (None, torch.tensor([0.0, 1.0, 3.0])):
        found, expected = (
            Loss(multilabel_loss(function), 3, 255, weights, multilabel=True)(logits, target)
            for function in (plain, cross_entropy)
        )
        assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell.get("outputs") for cell in notebook["cells"])
    # As a script: the last line of a cell is what a notebook shows.
    shown = [re.sub(r"(?m)^(\S.*)\Z", r"print(repr(\1))", cell.rstrip()) for cell in cells]
    (tmp_path / "cells.py").write_text("if __name__ == '__main__':\n" + "\n".join(map(indented, shown)))
    done = subprocess.run([sys.executable, "cells.py"], cwd=tmp_path, capture_output=True, text=True, timeout=290)
    assert done.returncode == 0, done.stderr
    assert "<Results of notebook-study: 4 of 4 trials done" in done.stdout
    assert (tmp_path / "results" / "notebook-study" / "report.html").exists()


def indented(cell: str) -> str:
    """The cell inside of a block; lines of texts stay where they are."""
    lines, inside = [], False
    for line in cell.splitlines():
        lines.append(line if inside or not line else f"    {line}")
        inside ^= line.count('"""') % 2 == 1
    return "\n".join(lines)


def test_generated_pages_hold_every_column_key_and_command() -> None:
    frames, study, commands = frames_page(), study_page(), commands_page()
    assert all(f"`{name}`" in frames for name in ("results.trials", "analysis.contrasts", "test_score", "p_holm"))
    assert all(f"| `{key}` |" in study for key in ("epochs", "keep", "until", "wandb"))
    assert all(f"## ablate {name}\n" in commands for name in ("run", "init", "predict", "check"))
    components = PAGES["components.md"]()
    assert "- " not in MODELS and all(f"`{name}`" in components for name in ("width", "gamma", "betas"))


def test_every_page_of_the_site_is_there() -> None:
    pages = re.findall(r"([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert all((ROOT / "docs" / page).exists() or page in PAGES for page in pages) and len(pages) > 15


def test_the_folder_data_set_can_be_asked_for_its_classes() -> None:
    assert "classes" in signature_names() and "classes" in folder.proposals  # type: ignore[attr-defined]


def signature_names() -> list[str]:
    from ablate.registry import DATASETS

    return list(signature(DATASETS, "folder").parameters)
