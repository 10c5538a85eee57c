"""From host memory to a device without waiting for the work that is queued there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def upload(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """`values` (an array or a tensor of any shape) on `device`; itself where it is there already."""
    tensor = torch.from_numpy(np.ascontiguousarray(values)) if isinstance(values, np.ndarray) else values
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    # From pageable memory the copy would wait for the stream. The allocator of pinned memory gives a block out again
    # only when the copies from it are done, so nothing has to be kept here.
    return tensor.pin_memory().to(device, non_blocking=True)
