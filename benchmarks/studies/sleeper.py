"""A plugin whose trials sleep: two of them at a time need no more of a machine than one."""

from __future__ import annotations

import time

from torch import Tensor, nn

import ablate
import benchmarks.studies.nothing  # noqa: F401 (registers the data)


class Sleeper(nn.Module):
    """One 1×1 convolution that sleeps for `seconds` in every training step."""

    def __init__(self, in_channels: int, num_classes: int, seconds: float) -> None:
        super().__init__()
        self.layer, self.seconds = nn.Conv2d(in_channels, num_classes, 1), seconds

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, num_classes, H, W)."""
        if self.training and x.device.type != "meta":
            time.sleep(self.seconds)
        logits: Tensor = self.layer(x)
        return logits


@ablate.register_model("sleeper")
def sleeper(*, in_channels: int, num_classes: int, seconds: float = 1.0) -> nn.Module:
    """Sleep in every training step."""
    return Sleeper(in_channels, num_classes, seconds)
