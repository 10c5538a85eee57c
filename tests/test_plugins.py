"""Plugins: loaded, hashed, and held to their contract."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import ablate
from ablate.errors import PluginError
from ablate.plugins import check_model, hashed, load_plugins, random_states
from ablate.registry import MODELS

MODEL = """\
import ablate
import torch
from torch import nn

@ablate.register_model("{name}")
def build(*, in_channels: int, num_classes: int, width: int = 4) -> nn.Module:
    {body}
"""
SOUND = "return nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.Conv2d(width, num_classes, 1))"


@pytest.fixture(autouse=True)
def modules(registered: None) -> Iterator[None]:  # noqa: ARG001 (asked for what it forgets)
    """Forget what a test imported, and what it registered."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("ablate_plugin_", "beside")):
            del sys.modules[name]


def plugin(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_plugin_registers_and_is_hashed(tmp_path: Path) -> None:
    path = plugin(tmp_path, MODEL.format(name="from_plugin", body=SOUND))
    (loaded,) = load_plugins([path], entry_points=False)
    assert (loaded.file, loaded.sha256) == (str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    assert MODELS.source("from_plugin") == f"{path}:5"
    check_model({"name": "from_plugin", "width": 2}, in_channels=3, num_classes=5, size=(7, 9))


def test_loading_it_again_is_no_conflict(tmp_path: Path) -> None:
    path = plugin(tmp_path, MODEL.format(name="from_plugin", body=SOUND))
    assert load_plugins([path, path], entry_points=False) == load_plugins([path], entry_points=False)


def test_a_plugin_in_a_folder_with_blanks_quotes_and_unicode(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s a "plügin" folder'
    folder.mkdir()
    path = plugin(folder, MODEL.format(name="from_odd_folder", body=SOUND), "my model.py")
    assert [item.file for item in load_plugins([path], entry_points=False)] == [str(path)]


def test_modules_beside_a_plugin_are_hashed_with_it(tmp_path: Path) -> None:
    plugin(tmp_path, "WIDTH = 4\n", "beside_one.py")
    path = plugin(tmp_path, "import json\nimport beside_one\n")
    loaded = load_plugins([path], entry_points=False)
    assert [Path(item.file).name for item in loaded] == ["mine.py", "beside_one.py"]
    assert str(tmp_path) not in sys.path


def test_a_trusted_plugin_is_told_which_file_beside_it_is_not(tmp_path: Path) -> None:
    plugin(tmp_path, "WIDTH = 4\n", "beside_two.py")
    path = plugin(tmp_path, "import beside_two\n")
    with pytest.raises(PluginError, match=r"No module named 'beside_two'; name beside_two\.py under plugins, too"):
        load_plugins([hashed(path)], entry_points=False)


def test_a_plugin_at_the_root_of_the_checkout_does_not_take_ablate_for_its_own(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "ablate").symlink_to(Path(ablate.__file__).parent)
    path = plugin(root, "import ablate.stats.bounded\n")
    program = (
        "import sys; from pathlib import Path; from ablate.plugins import load_plugins; "
        f"print(*(item.file for item in load_plugins([Path({str(path)!r})], entry_points=False)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(path)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "x = 1\nimport not_there_at_all\n",
            ":2: cannot be imported: ModuleNotFoundError: No module named 'not_there_at_all'",
        ),
        ("def f():\n    return 1 / 0\n\nf()\n", ":2: cannot be imported: ZeroDivisionError: division by zero"),
        ("x = (\n", ":1: cannot be imported: '(' was never closed"),
        ("import json\njson.loads('{')\n", ":2: cannot be imported: JSONDecodeError: Expecting property name"),
        ("import sys\nsys.exit(3)\n", ":2: cannot be imported: SystemExit: 3"),
        ("raise ValueError('two\\nlines')\n", ":1: cannot be imported: ValueError: two lines"),
    ],
)
@pytest.mark.fault("P1", "file and line are named")
def test_an_import_that_fails_names_its_line(text: str, message: str, tmp_path: Path) -> None:
    path, before = plugin(tmp_path, text), set(sys.modules)  # other tests may have loaded one of that name
    with pytest.raises(PluginError) as caught:
        load_plugins([path], entry_points=False)
    assert str(caught.value).startswith(f"{path}{message}")
    assert not [name for name in set(sys.modules) - before if name.startswith("ablate_plugin_mine")]


def test_files_that_are_no_plugins(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"none\.py: no such plugin file"):
        load_plugins([tmp_path / "none.py"], entry_points=False)
    with pytest.raises(PluginError, match=r"plugin\.txt: expected a Python file, got"):
        load_plugins([plugin(tmp_path, "x = 1", "plugin.txt")], entry_points=False)


@pytest.mark.fault("P3", "both places are named")
def test_a_name_that_is_taken_names_both_places(tmp_path: Path) -> None:
    first = plugin(tmp_path, MODEL.format(name="taken", body=SOUND), "first.py")
    second = plugin(tmp_path, MODEL.format(name="taken", body=SOUND), "second.py")
    with pytest.raises(PluginError, match=r"'taken' is registered twice: in .*first\.py:5 and in .*second\.py:5"):
        load_plugins([first, second], entry_points=False)
    with pytest.raises(PluginError, match="'unet' is registered twice: in ablate and in"):
        load_plugins([plugin(tmp_path, MODEL.format(name="unet", body=SOUND))], entry_points=False)


@pytest.mark.parametrize(
    ("text", "library"),
    [
        ("import random\nrandom.seed(0)\n", "random"),
        ("import numpy as np\nnp.random.seed(0)\n", "numpy"),
        ("import torch\ntorch.manual_seed(0)\n", "torch"),
        ("import torch\ntorch.rand(3)\n", "torch"),
    ],
)
@pytest.mark.fault("P4", "refused, naming the library")
def test_an_import_that_changes_a_global_random_state_is_refused(text: str, library: str, tmp_path: Path) -> None:
    path = plugin(tmp_path, text)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)  # not the state that the plugin sets, whichever tests came before
    with pytest.raises(
        PluginError, match=f"changed the global random state of {library}; take a generator of your own"
    ):
        load_plugins([path], entry_points=False)


def installed(folder: Path, value: str) -> None:
    info = folder / "beside_installed-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: beside-installed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ablate.plugins]\nnets = {value}\n")


def test_an_entry_point_is_loaded_and_named_where_it_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = tmp_path / "lib" / "site-packages"
    environment.mkdir(parents=True)
    plugin(environment, MODEL.format(name="installed", body=SOUND), "beside_installed.py")
    installed(environment, "beside_installed")
    monkeypatch.syspath_prepend(str(environment))
    (loaded,) = load_plugins()
    assert loaded.file == str(environment / "beside_installed.py")
    assert "installed" in MODELS
    installed(environment, "beside_missing")
    with pytest.raises(PluginError, match="nets = beside_missing: cannot be imported: ModuleNotFoundError"):
        load_plugins()


@pytest.mark.parametrize("name", ["study", "site-packages"])
@pytest.mark.fault(25, "its entry points are not loaded")
def test_an_entry_point_of_the_working_folder_is_never_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    plugin(folder, "raise SystemExit('the stranger ran')\n", "beside_installed.py")
    installed(folder, "beside_installed")
    monkeypatch.chdir(folder)
    for entry in ("", str(folder)):
        monkeypatch.syspath_prepend(entry)
        assert load_plugins() == []


@pytest.mark.fault(25, "not imported by the command")
def test_the_command_imports_nothing_of_the_folder_it_is_called_in(tmp_path: Path) -> None:
    for name in ("torch", "json", "yaml", "typing_extensions", "profile", "types"):
        plugin(tmp_path, f"raise SystemExit('{name} of the stranger ran')\n", f"{name}.py")
    (tmp_path / "study.yaml").write_text("study: s\ndata: {name: street}\nseeds: 1\n")
    command = Path(sys.executable).with_name("ablate")
    done = subprocess.run([command, "plan", "study.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert "stranger" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "return nn.Conv2d(in_channels, num_classes, 3)",
            r"expected logits \(2, 5, 8, 9\) for images \(2, 3, 8, 9\), got \(2, 5, 6, 7\)",
        ),
        ("return nn.Conv2d(in_channels, 4, 1)", r"expected logits \(2, 5, 8, 9\) .*, got \(2, 4, 8, 9\)"),
        ("return nn.Upsample(scale_factor=1)", "expected parameters to train, got none"),
        ("return 3", "expected a torch.nn.Module, got a int"),
        ("return nn.Conv2d(7, num_classes, 1)", r"RuntimeError: .*channels.* \(at \w+\.py:\d+\)"),
        (
            "torch.manual_seed(1); return nn.Conv2d(in_channels, num_classes, 1)",
            "leaves the global seed alone, got one that sets that of torch",
        ),
        (
            "import random; random.seed(1); return nn.Conv2d(in_channels, num_classes, 1)",
            "got one that sets that of random",
        ),
    ],
)
@pytest.mark.fault("P2", "what is wrong is named before training")
def test_a_model_that_breaks_its_contract(body: str, message: str, tmp_path: Path) -> None:
    path = plugin(tmp_path, MODEL.format(name="unsound", body=body))
    load_plugins([path], entry_points=False)
    with pytest.raises(PluginError, match=rf"^{path}:5: the model 'unsound': .*{message}"):
        check_model({"name": "unsound"}, in_channels=3, num_classes=5, size=(8, 9))


def test_checking_a_model_leaves_the_random_states_alone() -> None:
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    before = random_states()
    check_model({"name": "unet", "width": 2, "depth": 1}, in_channels=1, num_classes=2, size=(5, 6))
    assert random_states() == before
