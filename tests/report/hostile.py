"""A study whose names, reasons and classes try to be markup, mathematics or another line."""

from __future__ import annotations

import json
from pathlib import Path

from tests.planted import Truth, plant

STUDY = "study<script>alert('study')</script>"
CLASSES = ["<img src=x onerror=alert(1)>", "$\\frac{1}{0}$", "a&b<b>bold</b>", "{{ 7 * 7 }}", "日本語 \u202e rtl"]
REASON = "</td></table><script>alert('reason')</script>\nsecond line"
VERSION = "<marquee>2.13</marquee>"
MARKUP = [STUDY, CLASSES[0], CLASSES[2], CLASSES[3], VERSION]


def plant_hostile(path: Path) -> Path:
    """Plant it at `path`; the files are changed after they were written, as somebody else's results could be."""
    truth = Truth(failed=(("noskip", 3e-4, 1),))
    plant(path, variants=("unet", "noskip"), lrs=(1e-3, 3e-4), seeds=2, epochs=6, images=8, truth=truth, name="hostile")
    study = path / "study.yaml"
    study.write_text(study.read_text().replace("study: hostile", f'study: "{STUDY}"'), encoding="utf-8")
    _edit(path / "test" / "index.json", classes=CLASSES, names=[f"<i>{n}</i>.png" for n in range(8)])
    _edit(path / "run.json", versions={"torch": VERSION}, command="ablate run '<script>.yaml'")
    for record in path.glob("trials/noskip-lr3e-4-seed1-*/record.json"):
        _edit(record, reason=REASON)
    return path


def _edit(path: Path, **changes: object) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | changes), encoding="utf-8")
