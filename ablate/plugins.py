"""User code: plugin files and entry points loaded, hashed, and held to what a component promises."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import random
import site
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from ablate.errors import AblateError, PluginError
from ablate.registry import MODELS, Registry, is_below
from ablate.wording import short_path

if TYPE_CHECKING:
    import torch
    from torch import nn

ENTRY_POINTS = "ablate.plugins"
_SCHEMES = ("purelib", "platlib")


@dataclass(frozen=True)
class PluginFile:
    """A file whose code takes part in a study: its path (or name of the entry point), and its SHA-256."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Plugins:
    """The plugins of a run, and all files that loading them brought in, with their hashes.

    `files` are paths that the user named, and files that a study names, which are loaded only with their SHA-256.
    """

    files: tuple[Path | PluginFile, ...] = ()
    loaded: tuple[PluginFile, ...] = ()


def load_plugins(files: Sequence[Path | str | PluginFile] = (), *, entry_points: bool = True) -> list[PluginFile]:
    """Import the plugin `files`, then what is installed under the entry point `ablate.plugins`.

    Gives every file that was loaded: the plugins and the modules beside them that they import. Those that a
    `PluginFile` names are run only as they were hashed, and import nothing beside them but one another. Raises
    `PluginError` with file and line for what cannot be imported, registers a taken name, or changes a global random
    state.
    """
    among = {Path(item.file).stem: item for item in files if isinstance(item, PluginFile)}
    loaded = [found for file in files for found in _load_file(file, among)]
    if entry_points:
        # By name, so that the order of installation decides nothing.
        for point in sorted(_entry_points(), key=lambda item: (item.name, item.value)):
            loaded += _load_entry_point(point)
    return list({item.file: item for item in loaded}.values())


def _entry_points() -> set[metadata.EntryPoint]:
    """Find the entry points of what is installed in the environment, never those of a folder that one works in."""
    folders = [entry for entry in sys.path if entry and _is_installed(Path(entry))]
    return {
        point
        for distribution in metadata.distributions(path=folders)
        for point in distribution.entry_points
        if point.group == ENTRY_POINTS
    }


def _is_installed(folder: Path) -> bool:
    """Return whether `folder` is one of the environment's, of the user's own site, or named by a .pth file there."""
    known = [*site.getsitepackages(), site.getusersitepackages(), *(sysconfig.get_path(name) for name in _SCHEMES)]
    if any(folder.resolve() == Path(entry).resolve() for entry in known):
        return True
    return folder.name in ("site-packages", "dist-packages") and folder.resolve() != Path.cwd()


def _load_file(file: Path | str | PluginFile, among: Mapping[str, PluginFile]) -> list[PluginFile]:
    digest = file.sha256 if isinstance(file, PluginFile) else None
    path = short_path(Path(file.file if isinstance(file, PluginFile) else file).absolute())
    if not path.is_file():
        raise PluginError("no such plugin file", file=str(path))
    if path.suffix != ".py":
        raise PluginError("expected a Python file, got one that is not named so", file=str(path), cure="end it in .py")
    name = f"ablate_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    loader = _Source(name, str(path), digest)
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    if digest is not None:
        spec.submodule_search_locations = None  # no package: nothing beside it is imported that was not hashed
    module = module_from_spec(spec)
    for library in ("numpy", "torch"):
        # What the plugin is going to import anyway has to be there before its random state can be watched.
        if library.encode() in path.read_bytes():
            importlib.import_module(library)
    before = set(sys.modules)
    # Known by name before it runs, as dataclasses and pickling need it; beside others, so that it may import them.
    sys.modules[name] = module
    # The finders stay: a file may import another when a network is made.
    if digest is None:
        sys.path.append(str(path.parent))
        if (below := _Below(path.parent)) not in sys.meta_path:
            sys.meta_path.insert(0, below)
    elif (finder := _Among(among)) not in sys.meta_path:
        sys.meta_path.append(finder)
    try:
        with same_random_state(f"importing the plugin {path.name}", str(path)):
            _import(lambda: loader.exec_module(module), path)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    finally:
        if digest is None:
            sys.path.remove(str(path.parent))
    beside = {found for key in set(sys.modules) - before if (found := _source(sys.modules.get(key))) is not None}
    return [hashed(path), *(hashed(found) for found in sorted(beside - {path}) if is_below(found, path.parent))]


class _Source(SourceFileLoader):
    """Compiles the file itself, as it was hashed: bytecode that lies beside it may be that of another program."""

    def __init__(self, name: str, path: str, digest: str | None) -> None:
        super().__init__(name, path)
        self.digest = digest

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - as the loader that it extends
        data = self.get_data(self.path)
        if self.digest not in (None, hashlib.sha256(data).hexdigest()):
            raise PluginError("changed while it was being loaded", file=self.path, cure="run the command again")
        return self.source_to_code(data, self.path)


@dataclass(frozen=True)
class _Among(MetaPathFinder):
    """Finds the files that a study names, for one another; what else lies beside them is not found."""

    files: Mapping[str, PluginFile]

    def find_spec(self, fullname: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        item = self.files.get(fullname)
        if item is None:
            return None
        return spec_from_file_location(fullname, item.file, loader=_Source(fullname, item.file, item.sha256))


@dataclass(frozen=True)
class _Below(MetaPathFinder):
    """Has the modules in the folder of a plugin, and below it, compiled from their source, which is what is hashed."""

    folder: Path

    def find_spec(self, fullname: str, path: Any = None, _target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or not isinstance(spec.loader, SourceFileLoader | SourcelessFileLoader):
            return None
        file = Path(spec.loader.path)
        if not is_below(file, self.folder):
            return None
        if isinstance(spec.loader, SourcelessFileLoader):
            raise ImportError(f"{file} is bytecode without its source")
        spec.loader = _Source(fullname, str(file), None)
        return spec


def _load_entry_point(point: metadata.EntryPoint) -> list[PluginFile]:
    with same_random_state(f"importing the plugin {point.name}", point.value):
        found = _import(point.load, None, f"{point.name} = {point.value}")
        if not isinstance(found, ModuleType):
            # A function registers what it brings when it is called.
            if callable(found):
                _import(found, None, f"{point.name} = {point.value}")
            found = sys.modules.get(getattr(found, "__module__", ""))
    source = _source(found)
    return [hashed(source)] if source is not None else []


def _import(load: Callable[[], Any], path: Path | None, name: str = "") -> Any:
    try:
        return load()
    except PluginError:
        raise
    except SyntaxError as error:
        where = error.filename or str(path or name)
        raise PluginError(f"cannot be imported: {error.msg}", file=where, line=error.lineno) from None
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if path is not None and Path(frame.filename) == path]
        last = (own or frames)[-1]
        file, line = (str(path), last.lineno) if own else (str(path) if path else name, None)
        text = " ".join(str(error).split())
        message = f"cannot be imported: {type(error).__name__}{': ' if text else ''}{text}"
        beside = f"{error.name}.py" if isinstance(error, ModuleNotFoundError) and path is not None else ""
        cure = f"name {beside} under plugins, too" if beside and path and (path.parent / beside).is_file() else ""
        raise PluginError(message, file=file, line=line, cure=cure) from None


def _source(module: Any) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if isinstance(file, str) and file.endswith(".py") else None


def hashed(path: Path) -> PluginFile:
    """Return a file with its SHA-256."""
    return PluginFile(str(path), hashlib.sha256(path.read_bytes()).hexdigest())


# -- global random state ------------------------------------------------------------------------------------------


def random_states() -> dict[str, Any]:
    """Return the global generators' states, by the name of their library; of those that are imported."""
    states: dict[str, Any] = {"random": random.getstate()}
    if "numpy" in sys.modules:
        kind, keys, *rest = sys.modules["numpy"].random.get_state()
        states["numpy"] = (kind, keys.tobytes(), *rest)
    if "torch" in sys.modules:
        states["torch"] = bytes(sys.modules["torch"].get_rng_state().numpy())
    return states


@contextlib.contextmanager
def same_random_state(what: str, source: str) -> Iterator[None]:
    """Refuse code that changes a global random state: trials would then depend on what ran before them."""
    before = random_states()
    yield
    after = random_states()
    changed = [name for name in before if after[name] != before[name]]
    if changed:
        raise PluginError(
            f"{what} changed the global random state of {', '.join(changed)}",
            file=source,
            cure="take a generator of your own, such as numpy.random.default_rng(seed)",
        )


# -- contracts ----------------------------------------------------------------------------------------------------


def check_model(component: Mapping[str, Any], *, in_channels: int, num_classes: int, size: tuple[int, int]) -> None:
    """Raise `PluginError` where a model breaks its contract.

    In training and in evaluation mode float (2, in_channels, H, W) has to become floating-point logits
    (2, num_classes, H, W), there must be parameters to train, all of them when it is built, and initialisation has to
    follow the global seed, without setting it.
    """
    import torch
    from torch import nn
    from torch.nn.parameter import is_lazy

    from ablate.study.components import create

    name = component["name"]

    def build() -> nn.Module:
        model = create(MODELS, component, in_channels=in_channels, num_classes=num_classes)
        if not isinstance(model, nn.Module):
            raise MODELS.broken(name, f"expected a torch.nn.Module, got a {type(model).__name__}")
        lazy = [path for path, tensor in (*model.named_parameters(), *model.named_buffers()) if is_lazy(tensor)]
        if lazy:
            message = f"expected parameters of a known shape, got lazy ones ({', '.join(lazy[:3])})"
            raise MODELS.broken(name, message, "give the layers their channels: torch.nn.Conv2d(in_channels, ...)")
        return model

    states = random_states()
    with kept_random_states(), torch.no_grad(), reported(MODELS, name):
        model = build()
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise MODELS.broken(name, "expected parameters to train, got none")
        _check_seeding(build, name, states)
        images = torch.zeros(2, in_channels, *size)
        for mode in ("training", "evaluation"):
            check_outputs(name, model.train(mode == "training")(images), images, num_classes, mode)


def check_outputs(name: str, given: Any, images: torch.Tensor, num_classes: int, mode: str) -> list[torch.Tensor]:
    """Return what a model makes of float images (N, channels, H, W): logits (N, C, H, W), then auxiliary ones.

    Those may be smaller. Raises `PluginError` where it is something else.
    """
    from ablate.models import outputs

    try:
        found = outputs(given)
    except ValueError as error:
        raise MODELS.broken(name, f"{error} in {mode} mode") from None
    shape, wanted = tuple(images.shape), (len(images), num_classes, *images.shape[2:])
    for place, logits in enumerate(found):
        what = f"auxiliary logits {place}" if place else "logits"
        if not logits.is_floating_point():
            raise MODELS.broken(name, f"expected floating-point {what}, got {_kind(logits)} in {mode} mode")
        got = tuple(logits.shape)
        if place and len(got) == 4 and got[:2] == wanted[:2]:
            continue
        if got != wanted:
            expected = f"({len(images)}, {num_classes}, h, w)" if place else wanted
            raise MODELS.broken(name, f"expected {what} {expected} for images {shape}, got {got} in {mode} mode")
    return found


def _check_seeding(build: Callable[[], Any], name: str, before: Mapping[str, Any]) -> None:
    """Refuse a factory that sets the seed: two builds from different seeds then end in one state."""
    import numpy as np
    import torch

    after = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the legacy global state is what is being watched
        torch.manual_seed(seed)
        build()
        after.append(random_states())
    same = [library for library in before if after[0][library] == after[1][library]]
    if same:
        raise MODELS.broken(
            name,
            f"expected a model that leaves the global seed alone, got one that sets that of {', '.join(same)}",
            "remove the call that seeds: every seed of the study would give the same network",
        )


@contextlib.contextmanager
def kept_random_states() -> Iterator[None]:
    """Give the global generators of Python, NumPy and torch's CPU back as they were."""
    import numpy as np
    import torch

    ours, theirs = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(theirs)  # noqa: NPY002


@contextlib.contextmanager
def reported(registry: Registry, name: str, calls: str = "") -> Iterator[None]:
    """Say what fails within as one line about the component `name`; memory that runs out is not its fault.

    `calls` are the arguments that it is called with, said where they may be what is wrong.
    """
    try:
        yield
    except (AblateError, MemoryError):
        raise
    except Exception as error:
        cure = f"it is called with {calls}" if calls and isinstance(error, TypeError) else ""
        raise registry.broken(name, error, cure) from error


def _kind(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return f"a tensor of {dtype}" if dtype is not None else f"a {type(value).__name__}"
