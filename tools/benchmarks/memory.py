"""The memory that a call needs beyond what was there before it."""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def peak_mebibytes(work: Callable[[], Any]) -> float:
    """The highest level during one call, results included; NaN where the system does not tell."""
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what an earlier call freed would hide what this needs
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak to the present level
    except (OSError, AttributeError):
        return float("nan")
    before = _kibibytes("VmRSS")
    work()
    return (_kibibytes("VmHWM") - before) / 1024


def _kibibytes(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", status)[1])  # type: ignore[index]
