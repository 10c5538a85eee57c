"""A kept network judges images of any size, and leaves in forms that compute the same."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ablate.commands.export import export
from ablate.commands.predict import best_trial, predict
from ablate.data.files.header import Unusable
from ablate.errors import DataError, ResultsError
from ablate.records.store import Results
from ablate.train.predictor import Predictor
from tests.commands.conftest import Pictures
from tests.conftest import missing
from tests.data.pictures import save
from tests.planted import CLASSES, PALETTE


def test_masks_overlays_and_probabilities_of_any_size(trained: Results, picture: Pictures, tmp_path: Path) -> None:
    save(tmp_path / "new" / "a.png", picture((24, 32)))
    save(tmp_path / "new" / "deeper" / "b.jpg", picture((61, 45)))
    (tmp_path / "new" / "deeper" / "._b.jpg").write_bytes(b"of macOS")
    out = tmp_path / "out"
    record, count, left = predict(trained, [tmp_path / "new"], out, probabilities=True)
    assert (count, left) == (2, 0)
    for name, size in (("a", (24, 32)), ("deeper/b", (61, 45))):
        with Image.open(out / "masks" / f"{name}.png") as mask:
            assert mask.mode == "P" and mask.size == size[::-1]
            assert tuple(mask.getpalette()[:3]) == PALETTE[0]  # type: ignore[index]
            labels = np.asarray(mask)
        found = np.load(out / "probabilities" / f"{name}.npz")["probabilities"].astype(float)
        assert found.shape == (len(CLASSES), *size)
        assert np.allclose(found.sum(0), 1, atol=1e-2) and (found.argmax(0) == labels).mean() > 0.99
        with Image.open(out / "overlays" / f"{name}.png") as overlay:
            assert overlay.mode == "RGB" and overlay.size == size[::-1]
    listed = json.loads((out / "classes.json").read_text())["classes"]
    assert listed[1] == {"index": 1, "name": CLASSES[1], "colour": list(PALETTE[1])}
    assert record.metrics["val_mean_iou"] == max(r.metrics.get("val_mean_iou") or 0 for r in trained.records()[0])


@pytest.mark.parametrize(
    ("part", "patterns", "found"),
    [
        ("", "images: '*/*.png', masks: '*/*_mask.png'", (2, 2)),
        ("p1", "images: '*/*.png', masks: '*/*_mask.png'", (1, 1)),
        ("p1", "images: 'images/*.png', masks: 'masks/{stem}.png'", (2, 0)),
        ("p1", "images: 'p1/*.png', masks: 'p1/{stem}_{class}.png', classes: {disc: mask, box: other}", (1, 1)),
    ],
)
def test_masks_beside_the_images_are_left_out(
    trained: Results, picture: Pictures, tmp_path: Path, part: str, patterns: str, found: tuple[int, int]
) -> None:
    for name in ("p1/a", "p1/a_mask", "p2/b", "p2/b_mask"):
        save(tmp_path / "own" / f"{name}.png", picture((24, 32)))
    data = f"{{name: folder, root: own, {patterns}{', classes: [one, two]' * ('classes' not in patterns)}}}"
    text = trained.study.read_text()
    trained.study.write_text(re.sub(r"^data:(.*\n( .*\n)*)", f"data: {data}\n", text, flags=re.MULTILINE))
    assert predict(trained, [tmp_path / "own" / part], tmp_path / "out")[1:] == found


def test_nothing_is_written_among_the_images(trained: Results, picture: Pictures, tmp_path: Path) -> None:
    save(tmp_path / "new" / "a.png", picture((24, 32)))
    with pytest.raises(ResultsError, match="would be predicted the next time; choose another folder with --out"):
        predict(trained, [tmp_path / "new"], tmp_path / "new" / "out")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_the_network_sees_what_it_was_trained_on(trained: Results, picture: Pictures) -> None:
    folder, _ = best_trial(trained, None)
    predictor, image = Predictor(folder), picture((24, 32))
    card, expected = predictor.card, image.astype(np.float32) / 255
    inputs = torch.from_numpy(((expected - card.mean) / card.std).astype(np.float32).transpose(2, 0, 1)[None])
    with torch.no_grad():
        logits = predictor.model.network(inputs)
    assert np.allclose(predictor.probabilities(image), logits.softmax(1)[0].numpy(), atol=1e-5)


def test_a_variant_by_name_and_what_is_not_there(trained: Results) -> None:
    assert best_trial(trained, "noskip")[1].variant == "noskip"
    with pytest.raises(ResultsError, match="no trained network of the variant 'noskp'; did you mean 'noskip'"):
        best_trial(trained, "noskp")
    for folder in trained.folders():
        folder.best.unlink()
    with pytest.raises(ResultsError, match="no trained network is kept here"):
        best_trial(trained, None)


def test_an_image_that_cannot_be_used_stops_no_other(trained: Results, picture: Pictures, tmp_path: Path) -> None:
    save(tmp_path / "new" / "a.png", picture((24, 32)))
    (tmp_path / "new" / "b.png").write_bytes(b"no image")
    save(tmp_path / "new" / "c.png", np.zeros((24, 32), np.uint16))
    with pytest.raises(DataError) as caught:
        predict(trained, [tmp_path / "new"], tmp_path / "out")
    assert [problem.file.rpartition("/")[2] for problem in caught.value.problems] == ["b.png", "c.png"]
    assert "of 16 bits, while the network was trained on 8" in str(caught.value)
    assert (tmp_path / "out" / "masks" / "a.png").exists()


def test_an_image_of_one_file_a_band_is_that_of_one_file(trained: Results, picture: Pictures, tmp_path: Path) -> None:
    image = picture((24, 32))
    save(tmp_path / "whole.png", image)
    for word, band in zip(("B4", "B3", "B2"), np.moveaxis(image, 2, 0), strict=True):
        save(tmp_path / "bands" / f"a_{word}.png", band)
        save(tmp_path / "bands" / f"b_{word}.png", band[: 24 if word != "B2" else 20])
    save(tmp_path / "bands" / "c_B4.png", image[..., 0])
    with pytest.raises(DataError) as caught:
        predict(trained, [tmp_path / "whole.png", tmp_path / "bands/*_{B4,B3,B2}.png"], tmp_path / "out")
    said = [str(problem) for problem in caught.value.problems]
    assert "b_B4.png: an image whose bands differ in size or bits" in said[0]
    assert "c_B4.png: an image whose band " in said[1] and "c_B3.png cannot be read (No such file" in said[1]
    assert (tmp_path / "out/masks/a_B4.png").read_bytes() == (tmp_path / "out/masks/whole.png").read_bytes()
    folder, _ = best_trial(trained, None)
    with pytest.raises(Unusable, match="with 2 channels, while the network takes 3"):
        Predictor(folder).probabilities(image[..., :2])


def test_weights_of_another_network_are_refused(trained: Results) -> None:
    folder, _ = best_trial(trained, None)
    torch.save({"weight": torch.zeros(1)}, folder.best)
    with pytest.raises(ResultsError, match="the weights cannot be used"):
        Predictor(folder)
    folder.card.unlink()
    with pytest.raises(ResultsError, match="made before classes were kept beside weights"):
        Predictor(folder)


class _Runs:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('the code was run')",)


@pytest.mark.parametrize("how", ["pickle", "plain pickle", "empty", "text", "keys", "bomb"])
def test_weights_of_a_stranger_run_nothing_and_take_no_more_memory_than_they_are(how: str, trained: Results) -> None:
    folder, _ = best_trial(trained, None)
    made = io.BytesIO()
    torch.save({"pickle": {"weight": _Runs()}, "keys": {1: torch.zeros(1)}}.get(how, torch.zeros(2**20)), made)
    content = {"plain pickle": pickle.dumps(_Runs()), "empty": b"", "text": b"hello\nworld"}.get(how, made.getvalue())
    if how == "bomb":
        packed = io.BytesIO()
        with zipfile.ZipFile(made) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
            for name in source.namelist():
                target.writestr(name, source.read(name))
        content = packed.getvalue()
        assert len(content) < 2**16
    folder.best.write_bytes(content)
    with pytest.raises(ResultsError, match="the weights cannot be used") as caught:
        Predictor(folder)
    assert "weights_only" not in str(caught.value) and ("unpacks to more" in str(caught.value)) == (how == "bomb")


def test_what_is_written_follows_no_link(trained: Results, picture: Pictures, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    image = tmp_path / "new.png"
    save(image, picture((24, 32)))
    for name, write in {
        "model.pt2": lambda out: export(trained, out, forms=("torch",)),
        "classes.json": lambda out: predict(trained, [image], out),
        "masks/new.png": lambda out: predict(trained, [image], out),
    }.items():
        link = tmp_path / name.rpartition("/")[2].replace(".", "-") / name
        link.parent.mkdir(parents=True)
        link.symlink_to(tmp_path / "mine")
        with pytest.raises(ResultsError, match="a symbolic link, which is never written through"):
            write(link.parents[name.count("/")])
    assert (tmp_path / "mine").read_text() == "precious"


def test_the_program_of_torch_computes_the_same(trained: Results, tmp_path: Path) -> None:
    document = export(trained, tmp_path / "out", forms=("torch",))
    written = json.loads((tmp_path / "out" / "model.json").read_text())
    assert written == json.loads(json.dumps(document))
    assert written["classes"] == list(CLASSES) and written["size"] == [24, 32]
    assert written["files"]["model.pt2"]["largest_difference"] < 1e-3


@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_other_forms_compute_the_same(form: str, trained: Results, tmp_path: Path) -> None:
    for name in ("safetensors",) if form == "safetensors" else ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            missing(f"{name} is not installed (extra: export)")
    found = export(trained, tmp_path / "out", forms=(form,))["files"]
    assert len(found) == 1 and all(item["largest_difference"] < 1e-3 for item in found.values())
