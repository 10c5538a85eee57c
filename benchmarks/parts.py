"""A long measurement in parts that are kept, so that it can be stopped at any time and goes on."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return what names this machine since it was started; empty where the system does not say."""
    return BOOT_ID.read_text(encoding="ascii").strip() if BOOT_ID.exists() else ""


class Parts:
    """What is finished, a JSON file each, with the machine that made it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def of(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the part `name`, made now unless it was made before; a run that is killed leaves no half of one."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            began = time.time()
            part = make()
            unfinished = path.with_suffix(".part")
            unfinished.write_text(json.dumps({"boot": boot_id(), "part": part}) + "\n", encoding="utf-8")
            unfinished.replace(path)
            print(f"{self.folder.stem}: {name} took {time.time() - began:.0f} s", file=sys.stderr, flush=True)
        return json.loads(path.read_text(encoding="utf-8"))["part"]

    def made_here(self, name: str) -> bool:
        """Return whether the part `name` is there and was made on this machine since it was started."""
        path = self.folder / f"{name}.json"
        return path.exists() and json.loads(path.read_text(encoding="utf-8"))["boot"] == boot_id()

    def are_of(self, what: Any) -> None:
        """Refuse to go on with parts that were made of something else than `what` (JSON)."""
        if self.of("about", lambda: what) != json.loads(json.dumps(what)):
            raise SystemExit(f"{self.folder} holds parts of something else: delete it, or give another --name")
