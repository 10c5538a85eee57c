"""Any corruption of a record, a document, a zip or a checkpoint is noticed in one line, or is harmless."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablate.errors import ResultsError
from ablate.records.images import pack, read_arrays, unpack_maps
from ablate.records.record import DOCUMENTS, Record
from ablate.records.store import Results, publish_record, read_json, read_lines, read_record
from ablate.train import checkpoint

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
MASKS = np.random.default_rng(0).integers(0, 5, (3, 7, 9), dtype=np.uint8)
STATE = {"key": "k", "step": 3, "model": {"w": torch.arange(40.0)}}


@st.composite
def damage(draw: st.DrawFn) -> Any:
    """A function that damages bytes: flips bits, cuts off, puts in, takes out."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "delete"]))
    place, bit, text = draw(st.floats(0, 1)), draw(st.integers(0, 7)), draw(st.binary(min_size=1, max_size=8))

    def apply(data: bytes) -> bytes:
        at = min(int(place * len(data)), len(data) - 1)
        if kind == "flip":
            return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]
        if kind == "cut":
            return data[:at]
        return data[:at] + (text if kind == "insert" else b"") + data[at + (kind == "delete") :]

    return apply


def attempt(read: Callable[[], Any]) -> tuple[Any, str]:
    """What was read, and of an error the text."""
    try:
        return read(), ""
    except ResultsError as error:
        return None, str(error)


def one_line(error: str, path: Path) -> bool:
    return len(error.splitlines()) == 1 and str(path) in error


@QUICK
@given(harm=damage())
def test_a_damaged_zip_gives_the_same_masks_or_an_error(harm: Any, tmp_path: Path) -> None:
    path = tmp_path / "predictions.zip"
    path.write_bytes(harm(pack(MASKS)))
    found, error = attempt(lambda: unpack_maps(path))
    if error:
        assert one_line(error, path)
        return
    # What is not an error is the masks themselves, or fewer of them: never other labels.
    assert len(found) <= len(MASKS)
    assert all((one == other).all() for one, other in zip(found, MASKS, strict=False))


@QUICK
@given(harm=damage())
def test_a_damaged_npz_gives_the_same_counts_or_an_error(harm: Any, tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    np.savez_compressed(path, val=MASKS)
    path.write_bytes(harm(path.read_bytes()))
    found, error = attempt(lambda: read_arrays(path, ["val"]))
    if error:
        assert one_line(error, path)
        return
    np.testing.assert_array_equal(found["val"], MASKS)


def packed() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.write_state(Path(folder) / "state.pt", STATE)
        return (Path(folder) / "state.pt").read_bytes()


@QUICK
@given(harm=damage())
def test_a_damaged_checkpoint_gives_the_same_state_or_an_error(harm: Any) -> None:
    found, error = attempt(lambda: checkpoint.unpack(harm(packed())))
    if error:
        assert len(error.splitlines()) == 1
        return
    assert found["step"] == 3 and torch.equal(found["model"]["w"], STATE["model"]["w"])  # type: ignore[index]


@QUICK
@given(harm=damage())
def test_a_damaged_record_is_a_record_or_an_error(harm: Any, tmp_path: Path) -> None:
    folder = Results(tmp_path).trial("v-seed0-kkkkkkkk")
    folder.make()
    folder.record.unlink(missing_ok=True)
    values: dict[str, Any] = {"study": "s", "variant": "v", "settings": {"lr": 1e-3}, "seed": 0, "model": {}}
    publish_record(folder, Record(key="k" * 64, data={}, train={}, status="complete", **values))
    folder.record.write_bytes(harm(folder.record.read_bytes()))
    found, error = attempt(lambda: read_record(folder.record))
    assert isinstance(found, Record) or one_line(error, folder.record)


@QUICK
@given(document=JSON, name=st.sampled_from([*DOCUMENTS, "record.json"]))
def test_any_json_in_the_place_of_a_document_is_one_or_an_error(document: Any, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(document))
    found, error = attempt(lambda: read_record(path) if name == "record.json" else read_json(path))
    assert isinstance(found, Record | dict) or one_line(error, path)


@QUICK
@given(data=st.binary(max_size=200) | st.lists(JSON.map(json.dumps)).map(lambda lines: "\n".join(lines).encode()))
def test_any_bytes_in_the_place_of_curves_are_rows_or_an_error(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    path.write_bytes(data)
    found, error = attempt(lambda: read_lines(path))
    assert one_line(error, path) if error else all(isinstance(row, dict) for row in found)


@pytest.mark.parametrize("name", ["record.json", "run.json", "epochs.jsonl"])
def test_deep_nesting_is_an_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("[" * 100_000 + "\n{}\n")
    read = {"record.json": read_record, "run.json": read_json, "epochs.jsonl": read_lines}[name]
    with pytest.raises(ResultsError):
        read(path)
