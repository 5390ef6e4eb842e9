"""What an evaluator leaves behind: JSON files that are whole or absent, and tables for the log."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tabulate import tabulate


def write_json(path: Path, value: Any) -> None:
    """Write a file in one step, so that a reader never finds half of it. NaN becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(msgspec.json.encode(value, enc_hook=_python_number))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def metrics_table(metrics: Mapping[str, float]) -> str:
    """One row of numbers under their names."""
    return tabulate(
        [list(metrics.values())], list(metrics), tablefmt="pipe", floatfmt=".3f", numalign="left"
    )


def class_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], num_groups: int = 3) -> str:
    """Rows that begin with a class, in groups side by side.

    Args:
        columns: The heads of one group, "class" first.
        rows: One row a class.
        num_groups: How many groups at most.
    """
    num_groups = min(num_groups, max(1, len(rows)))
    height = -(-len(rows) // num_groups)
    groups = [rows[i * height : (i + 1) * height] for i in range(num_groups)]
    blank = [""] * len(columns)
    wide = [
        [cell for group in groups for cell in (group[i] if i < len(group) else blank)]
        for i in range(height)
    ]
    heads = [*columns] * num_groups
    return tabulate(wide, heads, tablefmt="pipe", floatfmt=".3f", numalign="left")


def _python_number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"JSON has no form for a {type(value).__name__}: {value!r}")
