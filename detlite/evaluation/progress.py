"""What is seen while a loop over test data goes on: lines of the log, and on a terminal a bar."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from datetime import timedelta
from typing import Any

from tqdm import tqdm

from ..utils.distributed import is_main_process, world_size
from ..utils.stopping import STOP

LOG_PERIOD = 30.0
"""Seconds between two lines of the log."""

Batch = list[dict[str, Any]]

logger = logging.getLogger(__name__)


def with_progress(
    loader: Iterable[Batch], what: str, log_period: float = LOG_PERIOD
) -> Iterator[Batch]:
    """The batches of a loader; the main process says how far it is.

    Args:
        loader: The batches of this process; where it has a length, or a ``dataset`` that has one,
            the time that is left is estimated.
        what: What is done with them, for the log.
        log_period: Seconds between two log lines.

    Raises:
        StopWaiting: The run was asked to stop, and a hook lets the loop be broken off.
    """
    if not is_main_process():
        yield from STOP.obeyed(loader)
        return
    shown = tqdm(loader, desc=what, unit="batch") if sys.stderr.isatty() else loader
    num_images = 0
    start = last = time.perf_counter()
    for num_batches, batch in enumerate(STOP.obeyed(shown), start=1):
        yield batch
        num_images += len(batch)
        now = time.perf_counter()
        if now - last >= log_period:
            last = now
            logger.info("%s: %s", what, _how_far(loader, num_batches, num_images, now - start))
    elapsed = max(time.perf_counter() - start, 1e-9)
    speed = num_images / elapsed
    logger.info("%s done: %d images in %.1f s, %.2f images/s", what, num_images, elapsed, speed)


def _how_far(loader: Iterable[Batch], num_batches: int, num_images: int, elapsed: float) -> str:
    speed = f"{num_images / elapsed:.2f} images/s"
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, Sized):
        # The other processes have a share as large, and are about as far.
        total = len(dataset)
        done, unit = min(num_images * world_size(), total), "images"
    elif isinstance(loader, Sized):
        done, total, unit = num_batches, len(loader), "batches"
    else:
        return f"{num_images} images, {speed}"
    left = timedelta(seconds=round((total - done) * elapsed / max(done, 1)))
    return f"{done}/{total} {unit}, {speed}, ETA {left}"
