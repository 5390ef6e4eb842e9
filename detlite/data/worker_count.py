"""How many data workers a process may start: those that there are cores for."""

import functools
import logging
import os

from ..utils.distributed import is_launched

logger = logging.getLogger(__name__)


@functools.cache
def usable_workers(num_workers: int) -> int:
    """The number of workers that this process has cores for, told once if it is a lower one.

    Args:
        num_workers: What the config asks for, for each process of the run.
    """
    cores, processes = _cores()
    limit = max(cores // processes, 1)
    if num_workers <= limit:
        return num_workers
    logger.info(
        "data.num_workers is %d, but there are %d cores for the %d processes of the run on this "
        "machine; each of them starts %d",
        num_workers,
        cores,
        processes,
        limit,
    )
    return limit


def _cores() -> tuple[int, int]:
    """The cores that this process may use, and the processes of the run that share them."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if is_launched() else 1
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1, processes
    own = os.sched_getaffinity(0)
    try:
        # A launcher that binds each process to cores of its own keeps more for itself.
        bound = own < os.sched_getaffinity(os.getppid())
    except OSError:
        bound = False
    return len(own), 1 if bound else processes
