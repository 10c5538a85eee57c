"""Images as zips: to the bit, in equal bytes, and damage is named."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ablate.errors import ResultsError
from ablate.records.images import count, pack, pack_images, read_arrays, unpack_image, unpack_maps, unpack_some


def masks(count: int = 5) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 12, (count, 9, 13), dtype=np.uint8)
    values[values == 11] = 255
    return values


def test_what_is_packed_comes_back_to_the_bit(tmp_path: Path) -> None:
    arrays = masks()
    path = tmp_path / "predictions.zip"
    path.write_bytes(pack(arrays))
    assert count(path) == 5
    back = np.asarray(unpack_maps(path))
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, arrays)
    np.testing.assert_array_equal(unpack_some(path, [4, 0, 4]), arrays[[4, 0, 4]])


def test_maps_of_several_sizes_come_back_as_they_are_and_are_shown_at_one(tmp_path: Path) -> None:
    arrays = [np.array([[1, 2], [3, 4]], np.uint8), masks(1)[0], np.full((3, 3), 7, np.uint8)]
    path = tmp_path / "predictions.zip"
    path.write_bytes(pack(arrays))
    for back, array in zip(unpack_maps(path), arrays, strict=True):
        np.testing.assert_array_equal(back, array)
    np.testing.assert_array_equal(unpack_maps(path, [0, 0]), np.stack([arrays[0]] * 2))
    # To be looked at all have the size of the largest, whichever are asked for; no label is made up.
    shown = unpack_some(path, [0, 2])
    assert shown.shape == (2, 9, 13)
    assert np.unique(shown[0]).tolist() == [1, 2, 3, 4] and (shown[1] == 7).all()
    assert shown[0][0, 0] == 1 and shown[0][-1, -1] == 4
    np.testing.assert_array_equal(unpack_some(path, [1])[0], arrays[1])


def test_equal_arrays_give_equal_bytes_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    first = pack(masks())
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    assert hashlib.sha256(pack(list(masks()))).digest() == hashlib.sha256(first).digest()


@pytest.mark.parametrize("channels", [0, 1, 2, 3])
def test_images_are_close_and_grey_is_repeated(tmp_path: Path, channels: int) -> None:
    ramp = np.linspace(0, 255, 32 * 48).reshape(32, 48).astype(np.uint8)
    image = ramp if channels == 0 else np.stack([ramp, 255 - ramp, ramp // 2][:channels], axis=2)
    path = tmp_path / "images.zip"
    path.write_bytes(pack_images([image, image]))
    back = unpack_image(path, 1)
    assert back.shape == (32, 48, 3) and back.dtype == np.uint8
    wanted = image if channels == 3 else np.repeat(ramp[..., None], 3, axis=2)
    assert np.abs(back.astype(int) - wanted).mean() < 3


def test_an_empty_pack_and_a_single_pixel(tmp_path: Path) -> None:
    path = tmp_path / "none.zip"
    path.write_bytes(pack([]))
    assert np.asarray(unpack_maps(path)).shape == (0, 0, 0)
    path.write_bytes(pack(np.array([[[255]]], np.uint8)))
    assert np.asarray(unpack_maps(path)).tolist() == [[[255]]]


def test_other_arrays_than_uint8_are_refused() -> None:
    with pytest.raises(ValueError, match="int64"):
        pack(np.zeros((1, 4, 4), np.int64))


def test_damage_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "predictions.zip"
    with pytest.raises(ResultsError, match="no such file"):
        unpack_maps(path)
    whole = pack(masks())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ResultsError, match=r"predictions\.zip: not a readable zip"):
        unpack_maps(path)
    at = whole.index(b"IDAT") + 8
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    with pytest.raises(ResultsError, match=r"00000\.png cannot be read"):
        unpack_maps(path)
    path.write_bytes(whole)
    with pytest.raises(ResultsError, match=r"no image 00005\.png"):
        unpack_some(path, [5])


@pytest.mark.fault(34, "archives that unpack to more than a limit are refused")
def test_what_unpacks_to_more_than_memory_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablate.records.images.MAX_BYTES", 100_000)
    path = tmp_path / "predictions.zip"
    path.write_bytes(pack([np.zeros((200, 200), np.uint8)] * 3))
    with pytest.raises(ResultsError, match="at most 100,000 bytes, got more"):
        unpack_maps(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("val.npy", bytes(10**6))
    assert path.stat().st_size < 10_000
    with pytest.raises(ResultsError, match="at most 100,000 bytes unpacked, got more"):
        read_arrays(path, ["val"])


@pytest.mark.parametrize(
    "lean",
    [
        np.zeros((3, 2, 4), [("a", "u2")]),
        np.zeros((3, 2, 4), np.float32),
        np.zeros((3, 2, 4, 1), np.uint16),
        np.zeros((2, 2, 4), np.uint16),
        np.zeros((3, 20, 200), np.uint8),  # 12,000 bytes, and 96,000 as int64, twice
    ],
)
def test_counts_of_another_form_or_too_many_are_refused(
    lean: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablate.records.images.MAX_BYTES", 100_000)
    path = tmp_path / "images.npz"
    np.savez_compressed(path, val_target_fp_fn=lean)
    with pytest.raises(ResultsError, match=r"val_target_fp_fn of .* holds no counts|holds no numbers") as refused:
        read_arrays(path, ["val"])
    assert "\n" not in str(refused.value)


def test_arrays_that_hold_no_numbers_or_claim_more_than_memory_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    np.savez(path, val=np.zeros((2, 3, 3), [("a", "u2")]))
    with pytest.raises(ResultsError, match="holds no numbers"):
        read_arrays(path, ["val"])
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (2**55,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("val.npy", header.getvalue())
    with pytest.raises(ResultsError, match="its arrays cannot be read"):
        read_arrays(path, ["val"])


def test_arrays_come_back_and_what_holds_objects_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    np.savez_compressed(path, val=np.arange(6).reshape(1, 2, 3), other=np.zeros(1))
    assert read_arrays(path, ["val"])["val"].tolist() == [[[0, 1, 2], [3, 4, 5]]]
    with pytest.raises(ResultsError, match=r"images\.npz: it lacks 'test"):
        read_arrays(path, ["val", "test"])
    np.savez(path, val=np.array([{}], dtype=object))
    with pytest.raises(ResultsError, match="Object arrays cannot be loaded"):
        read_arrays(path, ["val"])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, val=np.arange(1000))
    damaged = bytearray(buffer.getvalue())
    damaged[len(damaged) // 3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ResultsError, match=r"cannot be read|lacks"):
        read_arrays(path, ["val"])
