"""Rules of names: names that are safe as folder names everywhere, and keys that look like secrets."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from ablate.errors import redacted
from ablate.study.problems import Finding, KeyPath, shown

MAX_LENGTH = 64
MAX_BYTES = 128
ALLOWED = re.compile(r"\w[\w.+-]*")
# Windows keeps these for devices, with any ending: https://learn.microsoft.com/windows/win32/fileio/naming-a-file
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
# The words of a claim about no variant in particular.
RESERVED = {"any", "all"}
# Here the keys are classes, which may be called whatever they are.
CLASS_NAMES = (("data", "classes"), ("data", "palette"))
SECRET = re.compile(r"(?i)(^|[_-])(api[_-]?key|private[_-]?key|token|secret|password|passwd|credentials?)$")


def name_findings(name: str, path: KeyPath) -> list[Finding]:
    """Return what keeps `name` from being the name of a folder on every file system."""
    if len(name) > MAX_LENGTH:
        return [Finding(path, f"expected a name of at most {MAX_LENGTH} characters, got one of {len(name)}")]
    if len(name.encode("utf-8", "replace")) > MAX_BYTES:
        # A trial's folder is called by its variant, setting, seed and key: 255 bytes at most on most file systems.
        return [Finding(path, f"expected a name of at most {MAX_BYTES} bytes, got one of {len(name.encode())}")]
    if not ALLOWED.fullmatch(name):
        message = f"expected a name of letters, digits, '_', '-', '+' and '.', got {shown(name)}"
        safe = re.sub(r"[^\w.+-]+", "-", name).strip("-.+")
        return [Finding(path, message, f"write '{safe}'" if ALLOWED.fullmatch(safe) else "")]
    if name.endswith("."):
        return [Finding(path, f"expected a name that does not end in a dot, got {shown(name)}")]
    if name.split(".")[0].casefold() in DEVICES:
        return [Finding(path, f"expected a name that is no device on Windows, got {shown(name)}")]
    return []


def variant_name_findings(names: Iterable[str]) -> list[Finding]:
    """Return the `name_findings` of every name, and pairs that a file system without case could not tell apart."""
    findings: list[Finding] = []
    seen: dict[str, str] = {}
    for name in names:
        path: KeyPath = ("variants", name)
        findings += name_findings(name, path)
        if name.casefold() in RESERVED:
            findings.append(Finding(path, f"expected another name than {shown(name)}, a word of claims"))
        folded = unicodedata.normalize("NFC", name).casefold()
        if folded in seen:
            message = f"expected names that differ in more than case, got {shown(name)} beside {shown(seen[folded])}"
            findings.append(Finding(path, message))
        seen.setdefault(folded, name)
    return findings


def is_secret(key: str) -> bool:
    """Return whether a key is named like a secret, such as `api_key` or `WANDB_TOKEN`."""
    return bool(SECRET.search(key))


def secret_findings(value: Any, path: KeyPath = ()) -> list[Finding]:
    """Find keys named like secrets and URLs with a password: a study is copied into its results, which are shared."""
    findings: list[Finding] = []
    if isinstance(value, dict):
        for key, inner in value.items():
            if is_secret(key) and path not in CLASS_NAMES:
                cure = "put it into the environment, such as WANDB_API_KEY"
                message = "expected no secret in a study file, got a key named like one"
                findings.append(Finding((*path, key), message, cure, covers=True))
            else:
                findings += secret_findings(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            findings += secret_findings(inner, (*path, index))
    elif isinstance(value, str) and has_password(value):
        cure = "put it into the environment (PGPASSWORD) or ~/.pgpass"
        findings.append(Finding(path, "expected a URL without a password, got one with it", cure))
    return findings


def has_password(text: str) -> bool:
    """Return whether `text` is a URL with a password, as user:password@host or ?password=."""
    return "://" in text and redacted(text) != text
