"""Layout and arithmetic that reach a network's convolutions: channels last, bfloat16, gradients in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ablate.train.network import Network
from benchmarks.gpu_probe import random_data

# Odd at every level, as 360×480 is at the last: there the decoder cuts its features to size.
SIZE = (45, 59)
DATA = random_data(3, 11, SIZE, 2)


@pytest.mark.parametrize("variant", [{}, {"skip": "none"}, {"block": "residual"}, {"skip": "attention"}])
def test_every_convolution_computes_in_bfloat16_with_channels_last(variant: dict[str, Any]) -> None:
    model = {"name": "unet", "width": 4, "depth": 3, **variant}
    network = Network(model, DATA, "cross_entropy", None, device=torch.device("cpu"), precision=torch.bfloat16)
    seen: dict[str, int] = {}

    def look(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            seen[name] = inputs[0].stride(1)
            assert output.dtype == torch.bfloat16, name
            assert output.is_contiguous(memory_format=torch.channels_last), name

        return hook

    convolutions = {
        name: module
        for name, module in network.model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    }
    for name, module in convolutions.items():
        module.register_forward_hook(look(name))
    images, masks = torch.zeros(2, *SIZE, 3, dtype=torch.uint8), torch.zeros(2, *SIZE, dtype=torch.uint8)
    network.model.train()
    network.training_loss(images, masks).backward()
    # Neighbours in memory are the channels of a pixel, also where a map was cut to size.
    assert seen == dict.fromkeys(convolutions, 1)
    for name, parameter in network.model.named_parameters():
        assert parameter.dtype == torch.float32 and parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32, name
