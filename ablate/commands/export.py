"""`ablate export`: a study's best network for use elsewhere, each form compared with the network on a test image."""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablate.commands.predict import best_trial
from ablate.errors import AblateError, ResultsError, install_cure
from ablate.records.files import make_folder, refuse_link, write_atomic, writing
from ablate.records.images import unpack_image
from ablate.records.store import Results, to_json
from ablate.train.predictor import Predictor

# Largest difference of a logit, relative to the largest logit, that counts as the same.
TOLERANCE = 1e-3


def export(results: Results, out: Path, *, variant: str | None = None, forms: tuple[str, ...] = ()) -> dict[str, Any]:
    """Write the best network as `model.json` and in `forms`, by default all whose packages are installed.

    The safetensors file holds the bare weights; the programs of torch and ONNX take images float32 (N, channels, H, W)
    in 0..1 at the trained size and normalise them themselves. Returns what `model.json` says, with the largest
    difference of each form's logits on a test image. Raises `AblateError` where a package of a form asked for is not
    installed, `ResultsError` where a form computes something else.
    """
    lacking = {
        name: [package for package in form.needs if importlib.util.find_spec(package) is None]
        for name, form in FORMS.items()
    }
    for name in forms:
        if lacking[name]:
            missing = " and ".join(lacking[name])
            raise AblateError(f"--as {name}: {missing} is not installed", cure=install_cure("export"))
    forms = forms or tuple(name for name in FORMS if not lacking[name])
    folder, record = best_trial(results, variant)
    predictor = Predictor(folder)
    model, images = predictor.model, _test_image(results, predictor)
    with writing(out):
        for path in make_folder(out).glob("model.*"):  # what a library writes would follow a link
            refuse_link(path)
    with torch.no_grad():
        expected = model(images)
    files = {}
    for name in forms:
        form = FORMS[name]
        logits = form.write(predictor, images, out / form.file)
        difference = float((logits - expected).abs().max() / expected.abs().max())
        if not difference <= TOLERANCE:
            raise ResultsError(f"its logits differ from the network's by {difference:.2g}", file=form.file)
        files[form.file] = {"largest_difference": difference}
    run = results.read_run()
    document = {
        **predictor.card.document(),
        "study": record.study,
        "trial": folder.name,
        "metrics": {name: record.metrics.get(name) for name in ("val_mean_iou", "test_mean_iou", "best_epoch")},
        "data": {"name": record.data.get("name"), "fingerprint": (run.get("data") or {}).get("fingerprint")},
        "versions": run.get("versions", {}),
        "files": files,
        "input": "images float32 (N, channels, height, width) in 0..1; the bare weights take (images - mean) / std",
        "output": f"logits (N, classes, height, width){', each class by its sigmoid' * predictor.card.multilabel}",
    }
    write_atomic(out / "model.json", to_json(document))
    return document


def _test_image(results: Results, predictor: Predictor) -> Tensor:
    """Return a test image of the study as the network takes it; noise where the folder keeps none."""
    card = predictor.card
    try:
        pixels = unpack_image(results.test / "images.zip", 0)[..., : card.in_channels]
        if pixels.shape[2] == card.in_channels and card.window is None:
            return predictor.prepared(pixels)
    except ResultsError:
        pass
    noise = np.random.default_rng(0).random((1, card.in_channels, *card.size), dtype=np.float32)
    return torch.from_numpy(noise)


def _safetensors(predictor: Predictor, images: Tensor, path: Path) -> Tensor:
    from safetensors.torch import load_file, save

    network = predictor.model.network
    metadata = {"classes": "\n".join(predictor.card.classes)}
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    write_atomic(path, save(weights, metadata))
    network.load_state_dict(load_file(path))
    return _logits(predictor.model, images)


def _torch(predictor: Predictor, images: Tensor, path: Path) -> Tensor:
    program = torch.export.export(predictor.model, (images,))
    made = io.BytesIO()  # torch has errors of its own for a full disk
    torch.export.save(program, made)
    write_atomic(path, made.getvalue())
    return _logits(torch.export.load(path).module(), images)


def _onnx(predictor: Predictor, images: Tensor, path: Path) -> Tensor:
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of every operator of packages that are not there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts
        program = torch.onnx.export(
            predictor.model, (images,), dynamo=True, input_names=["images"], output_names=["logits"], verbose=False
        )
        assert program is not None
        program.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _logits(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images)


@dataclass(frozen=True)
class Form:
    """A form of a network: its file, the packages it needs, and what writes it and gives the logits of the file."""

    file: str
    needs: tuple[str, ...]
    write: Callable[[Predictor, Tensor, Path], Tensor]


FORMS = {
    "safetensors": Form("model.safetensors", ("safetensors",), _safetensors),
    "torch": Form("model.pt2", (), _torch),
    "onnx": Form("model.onnx", ("onnx", "onnxscript", "onnxruntime"), _onnx),
}
