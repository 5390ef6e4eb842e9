"""One piece of work at a time, in a thread of its own that yields to the rest of the process."""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable

_NICENESS = 10  # beyond that of the process
_MAX_NICENESS = 19
_PATIENCE = 60.0  # seconds between warnings

logger = logging.getLogger(__name__)


class BackgroundThread:
    """Runs functions, one after the other, never two at once.

    The process does not end before the one that runs has ended.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._started = 0.0

    def start(self, work: Callable[[], None], name: str) -> None:
        """Run a function that catches its own errors; waits first for the one before.

        Args:
            work: Takes and returns nothing.
            name: What it does, for the log.
        """
        self.wait()
        thread = threading.Thread(target=_at_low_priority, args=(work,), name=name, daemon=False)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is about to end
            logger.warning("%s is not done in the background: %s", name, error)
            work()
            return
        self._thread, self._started = thread, time.monotonic()

    def wait(self) -> None:
        """Return once nothing runs any more; a warning tells of every minute that this takes."""
        thread = self._thread
        if thread is None:
            return
        while True:
            thread.join(_PATIENCE)
            if not thread.is_alive():
                break
            logger.warning(
                "still waiting: %s takes %.0f seconds so far",
                thread.name,
                time.monotonic() - self._started,
            )
        self._thread = None


def _at_low_priority(work: Callable[[], None]) -> None:
    # Only on Linux does a thread have a priority of its own; elsewhere this is the process's.
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            own = threading.get_native_id()
            niceness = os.getpriority(os.PRIO_PROCESS, own) + _NICENESS
            os.setpriority(os.PRIO_PROCESS, own, min(niceness, _MAX_NICENESS))
    work()
