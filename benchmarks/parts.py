"""A long measurement in parts that are kept, so that it can be stopped at any time and goes on."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Parts:
    """What is finished, a JSON file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def of(self, name: str, make: Callable[[], Any]) -> Any:
        """The part `name`, made now unless it was made before; a run that is killed leaves no half of one."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            began = time.time()
            part = make()
            unfinished = path.with_suffix(".part")
            unfinished.write_text(json.dumps(part) + "\n", encoding="utf-8")
            unfinished.replace(path)
            print(f"{self.folder.stem}: {name} took {time.time() - began:.0f} s", file=sys.stderr, flush=True)
        return json.loads(path.read_text(encoding="utf-8"))

    def are_of(self, what: Any) -> None:
        """Refuse to go on with parts that were made of something else than `what` (JSON)."""
        if self.of("about", lambda: what) != json.loads(json.dumps(what)):
            raise SystemExit(f"{self.folder} holds parts of something else: delete it, or give another --name")
