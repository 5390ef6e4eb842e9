"""The processes of a run: who am I, how many are we, and how to gather what each one has."""

from typing import Any

import torch.distributed as dist


def world_size() -> int:
    """Number of processes; 1 outside a distributed run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process; 0 outside a distributed run."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main_process() -> bool:
    """Whether this process is the one that writes files and logs."""
    return rank() == 0


def gather_objects(value: Any) -> list[Any]:
    """The ``value`` of every rank, by rank, on every rank. Values need pickle."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered
