"""What an evaluator leaves behind: JSON files that are whole or absent, and tables for the log."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate


def write_json(path: Path, value: Any) -> None:
    """Write a file in one step, so that a reader never finds half of it. NaN becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(_without_nan(value), file, allow_nan=False)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def metrics_table(metrics: Mapping[str, float]) -> str:
    """One row of numbers under their names."""
    return tabulate(
        [list(metrics.values())], list(metrics), tablefmt="pipe", floatfmt=".3f", numalign="left"
    )


def class_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows that begin with a class, in up to three groups side by side.

    Args:
        columns: The heads of one group, "class" first.
        rows: One row a class.
    """
    num_groups = min(3, max(1, len(rows)))
    height = -(-len(rows) // num_groups)
    groups = [rows[i * height : (i + 1) * height] for i in range(num_groups)]
    blank = [""] * len(columns)
    wide = [
        [cell for group in groups for cell in (group[i] if i < len(group) else blank)]
        for i in range(height)
    ]
    heads = [*columns] * num_groups
    return tabulate(wide, heads, tablefmt="pipe", floatfmt=".3f", numalign="left")


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return value
