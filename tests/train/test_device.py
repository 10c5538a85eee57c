"""What a machine is good at, as far as any machine can say it."""

from __future__ import annotations

import pytest
import torch

from ablate.errors import DeviceError
from ablate.train import device
from ablate.train.device import Readback, bfloat16_gain, device_names, has_bfloat16


def test_devices_by_name() -> None:
    assert device_names(["cpu"]) == ["cpu"]
    with pytest.raises(DeviceError, match=r"run.devices: device 'cuda:97' is not there; this machine has .*cpu"):
        device_names(["cuda:97"])


@pytest.fixture
def two_kinds_of_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"cuda:0": "NVIDIA H200", "cuda:1": "NVIDIA T4", "cuda:2": "NVIDIA H200", "cpu": "a processor"}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr(device, "device_class", names.__getitem__)


@pytest.mark.usefixtures("two_kinds_of_gpu")
def test_devices_of_one_kind_only() -> None:
    assert device_names("auto") == ["cuda:0", "cuda:2"]
    assert device_names(["cuda:1"]) == ["cuda:1"]
    assert device_names(["cuda", "cuda:0", "cuda:2"]) == ["cuda:0", "cuda:2"]
    for mixed, said in (
        (["cuda:0", "cuda:1"], "NVIDIA H200; NVIDIA T4"),
        (["cpu", "cuda"], "a processor; NVIDIA H200"),
    ):
        with pytest.raises(DeviceError, match=f"the devices differ .{said}.*; name devices of one kind"):
            device_names(mixed)
    with pytest.raises(DeviceError, match="'cuda:7' is not there; this machine has cuda:0, cuda:1, cuda:2, cpu"):
        device_names(["cuda:7"])


@pytest.mark.parametrize(("gain", "pays"), [(0.5, False), (1.2, False), (1.9, True)])
def test_bfloat16_without_a_matrix_unit_has_to_show_that_it_pays(
    monkeypatch: pytest.MonkeyPatch, gain: float, pays: bool
) -> None:
    instructions = "avx512f avx512_bf16"
    monkeypatch.setattr(device, "cpuinfo", lambda _field: instructions)
    monkeypatch.setattr(device, "bfloat16_gain", lambda: gain)
    assert has_bfloat16("cpu") == (
        pays,
        f"a convolution in bfloat16 (AVX-512) has {gain:.1f} × the speed of one in float32",
    )
    instructions = "avx512f avx512_bf16 amx_tile"
    assert has_bfloat16("cpu")[0]
    instructions = "avx512f"
    assert not has_bfloat16("cpu")[0]


def test_the_gain_is_measured_and_the_process_left_as_it_was() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert 0.01 < bfloat16_gain() < 100
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)


def test_numbers_are_read_in_the_order_of_the_work() -> None:
    values = torch.arange(6.0).view(2, 3)
    reading = Readback([values, values.sum().long()])
    table, total = reading.wait()
    assert reading.ready() and table.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] and int(total) == 15
