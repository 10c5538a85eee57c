"""Code that a study names beside itself: nothing of it runs before the user has trusted it, as it is."""

from __future__ import annotations

import py_compile
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ablate.api import read_study
from ablate.cli import app
from ablate.commands.trust import trust, trusted_plugins
from ablate.errors import AblateError, PluginError, StudyError
from ablate.plugins import load_plugins

STUDY = "study: tiny\ndata: {name: street}\nplugins: [parts.py]\nseeds: 1\n"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The study of a stranger, in the folder that one works in; what its code does is to leave a trace."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "work"
    (folder / "results" / "tiny" / "trials").mkdir(parents=True)
    monkeypatch.chdir(folder)
    (folder / "results" / "tiny" / "run.json").write_text('{"study": "tiny"}')
    (folder / "parts.py").write_text("import pathlib\npathlib.Path('trace').touch()\n")
    path = folder / "study.yaml"
    path.write_text(STUDY)
    return path


@pytest.mark.parametrize(
    "words",
    [
        *([name, "study.yaml"] for name in ("run", "retry", "plan", "check", "profile", "data", "report", "export")),
        ["run", "."],
        ["report"],
        ["report", "results/tiny"],
        ["predict", "results/tiny", "images", "--out", "out"],
    ],
    ids=" ".join,
)
@pytest.mark.fault("P5", "refused by every command, with the cure")
def test_no_command_runs_what_a_stranger_put_beside_a_study(words: list[str], study: Path) -> None:
    error = CliRunner().invoke(app, words).exception
    assert isinstance(error, AblateError)
    assert "study.yaml:3: plugins: code that you have not trusted as it is: parts.py; read it, then: ablate trust" in (
        str(error)
    )
    assert not Path("trace").exists()
    assert study.exists()


def test_what_is_trusted_runs_until_it_changes(study: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["trust", "study.yaml"]).output
    (item,) = trusted_plugins(study)
    assert f"parts.py: SHA-256 {item.sha256}" in said
    assert not Path("trace").exists()
    read_study(study)
    assert Path("trace").exists()
    store = tmp_path / "config" / "ablate" / "trusted.json"
    assert store.stat().st_mode & 0o777 == 0o600
    Path("parts.py").write_text("print('other')\n")
    with pytest.raises(StudyError, match=r"not trusted as it is: parts\.py \(changed\)"):
        trusted_plugins(study)
    with pytest.raises(PluginError, match=r"parts\.py: changed while it was being loaded"):
        load_plugins([item])  # as a worker would, which was told of the file as it was
    # Trust is that of a place: the same files elsewhere are somebody else's.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("study.yaml", "parts.py"):
        (elsewhere / name).write_bytes(Path(name).read_bytes())
    trust(study)
    assert trusted_plugins(study)
    with pytest.raises(StudyError, match="not trusted"):
        trusted_plugins(elsewhere / "study.yaml")


def test_the_command_line_is_a_trust_of_its_own(study: Path) -> None:
    assert trusted_plugins(study, named=["parts.py"]) == ()
    assert trusted_plugins(study, ["plugins=[]"]) == ()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../parts.py", "got something else: ../parts.py; code from elsewhere is loaded by --plugin FILE.py"),
        ("/etc/parts.py", "got no such file: /etc/parts.py"),
        ("link.py", "got something else: link.py"),
        ("none.py", "got no such file: none.py"),
        ("study.yaml", "got something else: study.yaml"),
        (".", "got something else: ."),
    ],
)
def test_only_python_files_in_the_folder_of_the_study(name: str, message: str, study: Path, tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text("")
    Path("link.py").symlink_to(tmp_path / "parts.py")
    study.write_text(STUDY.replace("parts.py", name))
    with pytest.raises(StudyError) as caught:
        trust(study)
    expected = f"study.yaml:3: plugins[0]: expected a Python file in the folder of the study, {message}"
    assert expected in str(caught.value)


def test_files_that_a_study_names_see_one_another_and_nothing_else_beside_them(study: Path) -> None:
    Path("parts.py").write_text("import trust_helper\nassert trust_helper.WIDTH == 4\n")
    Path("trust_helper.py").write_text("WIDTH = 4\n")
    trust(study)
    with pytest.raises(PluginError, match=r"parts\.py:1: cannot be imported: ModuleNotFoundError: .*trust_helper"):
        load_plugins(trusted_plugins(study))
    study.write_text(STUDY.replace("parts.py", "parts.py, trust_helper.py"))
    trust(study)
    assert [Path(item.file).name for item in load_plugins(trusted_plugins(study), entry_points=False)] == [
        "parts.py",
        "trust_helper.py",
    ]
    del sys.modules["trust_helper"]


@pytest.mark.parametrize("module", ["parts", "trust_helper", "trust_package/__init__", "trust_package/inner"])
@pytest.mark.fault("P6", "its source is run, as it was hashed, and that of the modules beside it")
def test_bytecode_beside_a_plugin_is_never_run(module: str, study: Path) -> None:
    path = Path(f"{module}.py")
    path.parent.mkdir(exist_ok=True)
    path.write_text(Path("parts.py").read_text())
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(path), doraise=True, invalidation_mode=mode)
    if module == "parts":
        path.write_text("pass\n")
        trust(study)
        load_plugins([path, *trusted_plugins(study)], entry_points=False)
    else:
        path.write_text("WIDTH = 4\n")
        imported = module.removesuffix("/__init__").replace("/", ".")
        plugin = Path("uses.py")
        plugin.write_text(f"import {imported}\nassert {imported}.WIDTH == 4\n")
        loaded = load_plugins([plugin], entry_points=False)
        assert Path(loaded[-1].file) == path.absolute()
        for name in [name for name in sys.modules if name.startswith("trust_")]:
            del sys.modules[name]
    assert not Path("trace").exists()


def test_a_module_beside_a_plugin_of_which_there_is_bytecode_alone_is_refused(study: Path) -> None:
    Path("trust_helper.py").write_text("WIDTH = 4\n")
    py_compile.compile("trust_helper.py", cfile="trust_helper.pyc", doraise=True)
    Path("trust_helper.py").unlink()
    plugin = study.with_name("uses.py")
    plugin.write_text("import trust_helper\n")
    with pytest.raises(PluginError, match=r"uses\.py:1: .*trust_helper\.pyc is bytecode without its source"):
        load_plugins([plugin], entry_points=False)


@pytest.mark.parametrize(("text", "mode", "message"), [("{", 0o600, "is damaged"), ("{}", 0o666, "by others")])
def test_a_list_of_trust_that_shows_none(text: str, mode: int, message: str, study: Path, tmp_path: Path) -> None:
    store = tmp_path / "config" / "ablate" / "trusted.json"
    store.parent.mkdir(parents=True)
    store.write_text(text)
    store.chmod(mode)
    with pytest.raises(StudyError, match=f"^{store}: .*{message}.*; remove it"):
        trusted_plugins(study)


def test_a_study_without_plugins_has_nothing_to_trust(study: Path) -> None:
    study.write_text("study: tiny\ndata: {name: street}\n")
    with pytest.raises(StudyError, match="names no plugins"):
        trust(study)
    with pytest.raises(StudyError, match="no such study file"):
        trust(study.with_name("other.yaml"))
    for text in ("plugins: 3\n", "plugins: [", "- x\n"):  # which is said in full when the study is read
        study.write_text(text)
        assert trusted_plugins(study) == ()


@pytest.mark.parametrize("name", ["__init__.py", "pkg/__init__.py"])
def test_a_package_is_refused_as_what_lies_beside_it_was_not_hashed(name: str, study: Path) -> None:
    (study.parent / name).parent.mkdir(exist_ok=True)
    (study.parent / name).write_text("from . import parts\n")
    study.write_text(STUDY.replace("parts.py", name))
    with pytest.raises(StudyError, match="expected a Python file in the folder of the study, got something else"):
        trust(study)


def test_a_trusted_file_finds_another_when_a_network_is_made(study: Path) -> None:
    (study.parent / "lazy.py").write_text("def late():\n    import later_part\n    return later_part.VALUE\n")
    (study.parent / "later_part.py").write_text("VALUE = 7\n")
    study.write_text(STUDY.replace("parts.py", "lazy.py, later_part.py"))
    trust(study)
    load_plugins(trusted_plugins(study), entry_points=False)
    lazy = next(module for name, module in sys.modules.items() if name.startswith("ablate_plugin_lazy_"))
    assert lazy.late() == 7


def test_a_plugin_that_lies_elsewhere_is_the_one_that_was_named(study: Path, tmp_path: Path) -> None:
    (study.parent / "parts.py").rename(tmp_path / "parts.py")
    assert trusted_plugins(study, (), [tmp_path / "parts.py"]) == ()


def test_trust_is_not_looked_for_in_the_folder_that_one_works_in(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")
    monkeypatch.setenv("HOME", str(study.parent.parent / "home"))
    trust(study)
    assert (study.parent.parent / "home" / ".config" / "ablate" / "trusted.json").exists()
    assert not (study.parent / "config").exists()
