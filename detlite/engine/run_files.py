"""The files that a run leaves in its folder, as data: for hooks that go on with them, and tools."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.tree import parse_yaml

METRICS = "metrics.json"
SUMMARY = "summary.json"
CONFIG = "config.yaml"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.json``; what a killed run has left half written is passed over."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return []
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("iteration"), int):
            entries.append(entry)
    return entries


def read_summary(folder: Path) -> dict[str, Any]:
    """The ``summary.json`` of a run; empty where there is none that can be read."""
    try:
        found = json.loads((folder / SUMMARY).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.yaml`` of a run; empty where there is none that can be read."""
    try:
        return parse_yaml((folder / CONFIG).read_text(encoding="utf-8"), CONFIG).values
    except (OSError, ValueError):
        return {}


def flatten_config(value: Any, path: str = "") -> dict[str, Any]:
    """Nested values by their dotted paths: ``{"data.train.0.name": "Shapes"}``."""
    if isinstance(value, Mapping) and value:
        entries = [(str(key), entry) for key, entry in value.items()]
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        entries = [(str(i), entry) for i, entry in enumerate(value)]
    else:
        return {path: value} if path else {}
    flat: dict[str, Any] = {}
    for key, entry in entries:
        flat |= flatten_config(entry, f"{path}.{key}" if path else key)
    return flat
