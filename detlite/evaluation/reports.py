"""What an evaluator leaves behind: JSON files that are whole or absent, and tables for the log."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tabulate import tabulate

from ..utils.tables import fits, fitted_table

_FORMAT: dict[str, Any] = {"tablefmt": "pipe", "floatfmt": ".3f", "numalign": "left"}


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
    row, names = list(metrics.values()), list(metrics)
    return fitted_table([row], names, num_keys=0, **_FORMAT)


def class_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], num_groups: int = 3) -> str:
    """Rows that begin with a class, in groups side by side.

    Args:
        columns: The heads of one group, "class" first.
        rows: One row a class.
        num_groups: How many groups at most, as far as 80 columns hold them.
    """
    for number in range(min(num_groups, len(rows)), 1, -1):
        height = -(-len(rows) // number)
        groups = [rows[i * height : (i + 1) * height] for i in range(number)]
        blank = [""] * len(columns)
        wide = [
            [cell for group in groups for cell in (group[i] if i < len(group) else blank)]
            for i in range(height)
        ]
        table = tabulate(wide, [*columns] * number, **_FORMAT)
        if fits(table):
            return table
    return fitted_table(rows, columns, **_FORMAT)


def _python_number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"JSON has no form for a {type(value).__name__}: {value!r}")
