"""A study back to YAML, with everything written out: what lies beside the results of a run."""

from __future__ import annotations

from typing import Any

import yaml

from ablate.study.study import Study
from ablate.study.yamlfile import Refused, scalar


class _Dumper(yaml.SafeDumper):
    """Writes text so that the reader, which follows YAML 1.2, reads the same text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    try:
        plain = scalar(value) == value
    except Refused:
        plain = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def dump_study(study: Study) -> str:
    """The resolved study as YAML; reading it gives the same trials, whatever the defaults become."""
    document = study.spec.model_dump(mode="json")
    document["variants"] = {
        name: {**item.difference, **({"train": item.train} if item.train else {}), **_control(item.control)}
        for name, item in study.spec.variants.items()
    }
    document["claims"] = [claim.model_dump(mode="json", exclude_defaults=True) for claim in study.spec.claims]
    if study.spec.search is not None:
        document["search"] = study.spec.search.model_dump(mode="json", exclude_none=True)
    document = {key: value for key, value in document.items() if value not in (None, [], {})}
    header = f"# The study {study.name} as it was resolved; relative paths start at the original study file.\n"
    return header + yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )


def _control(control: bool) -> dict[str, bool]:
    return {"control": True} if control else {}
