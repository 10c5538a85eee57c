"""What the tests of training share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from ablate.train.engine import cuda_graph


@pytest.fixture
def _captures_by_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capture without CUDA: a replay is a call whose results are written in place."""

    def capture(work: cuda_graph.Work) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        for _ in range(cuda_graph.WARM_UPS):
            work()
        outputs = work()

        def replay() -> None:
            for place, value in zip(outputs, work(), strict=True):
                place.copy_(value)

        return replay, outputs

    monkeypatch.setattr(cuda_graph, "capture_on_cuda", capture)
