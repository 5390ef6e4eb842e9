"""What weights were made with, against what a config says."""

from collections.abc import Mapping
from typing import Any

_ABSENT = object()


def settings_differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Settings in which the same weights compute something else, a line each.

    Args:
        theirs: What the weights were made with, by dotted key.
        ours: The model's block, or settings by dotted key; keys that it lacks are left out.
    """
    lines = []
    for path, value in theirs.items():
        # Where the stride of a bottleneck is does not matter to networks that have none.
        if path == "backbone.stride_in_1x1" and _depth(ours) < 50:
            continue
        found = ours[path] if path in ours else _value_at(ours, path)
        if found is not _ABSENT and not _same(found, value):
            lines.append(f"model.{path}: {_shown(value)} there, {_shown(found)} here")
    return lines


def _value_at(block: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(block, Mapping) or key not in block:
            return _ABSENT
        block = block[key]
    return block


def _depth(block: Mapping[str, Any]) -> int:
    depth = block.get("backbone.depth", (block.get("backbone") or {}).get("depth", 50))
    return int(depth)


def _same(found: Any, value: Any) -> bool:
    if isinstance(value, list | tuple):
        return (
            isinstance(found, list | tuple)
            and len(found) == len(value)
            and all(map(_same, found, value))
        )
    if isinstance(value, float) and isinstance(found, int | float):
        return abs(found - value) <= 1e-3 * max(1.0, abs(value))
    return bool(found == value)


def _shown(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
