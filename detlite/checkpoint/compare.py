"""Whether two checkpoints hold the same, to the bit."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .reading import load_checkpoint

# What a clock says differs between any two runs, and so does memory; the configs name folders.
_OF_THE_CLOCK = {"time", "data_time", "memory"}
_NOT_COMPARED = ("config", "hooks.RunSummary.")


def compare_checkpoints(
    first: str | os.PathLike[str], second: str | os.PathLike[str]
) -> tuple[int, list[str]]:
    """Compare two checkpoints value by value, apart from times and the config.

    Returns:
        How many values were compared (tensors, numbers, strings), and a line for each that differs.

    Raises:
        CheckpointError: One of them cannot be read.
    """
    a, b = (dict(_leaves(load_checkpoint(path))) for path in (first, second))
    names = sorted(name for name in a.keys() | b.keys() if not name.startswith(_NOT_COMPARED))
    differences = []
    for name in names:
        if name not in a or name not in b:
            differences.append(f"{name}: only in {first if name in a else second}")
        elif difference := _difference(a[name], b[name]):
            differences.append(f"{name}: {difference}")
    return len(names), differences


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """What nested containers hold, by dotted name."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if key not in _OF_THE_CLOCK:
                yield from _leaves(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for i, entry in enumerate(value):
            yield from _leaves(entry, f"{name}.{i}")
    else:
        yield name, value


def _difference(a: Any, b: Any) -> str:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"{tuple(a.shape)} {a.dtype} against {tuple(b.shape)} {b.dtype}"
        # As bytes, so that equal NaNs are equal and 0 is not -0.
        if torch.equal(_bytes(a), _bytes(b)):
            return ""
        largest = float((a.double() - b.double()).abs().max())
        return f"{int((a != b).sum())} of {a.numel()} values, by {largest:.3g} at most"
    return "" if a == b or (a != a and b != b) else f"{a!r} against {b!r}"


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)
