"""Places where a test may have a process kill itself, named by ABLATE_FAILPOINT; nothing without it.

`ABLATE_FAILPOINT=step:17` sends SIGKILL before step 17, `epoch:2` after epoch 2, once a file:
`ABLATE_FAILPOINT_ONCE=/path` is created first and a failpoint whose file exists does nothing.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

_ARMED = os.environ.get("ABLATE_FAILPOINT", "")
_ONCE = os.environ.get("ABLATE_FAILPOINT_ONCE", "")


def failpoint(place: str, number: int) -> None:
    """Kill this process by SIGKILL where the environment says so."""
    if not _ARMED or f"{place}:{number}" != _ARMED:
        return
    if _ONCE:
        try:
            Path(_ONCE).touch(exist_ok=False)
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)
