"""A data worker beside its samples: it says which one is at hand, and ends with its parent."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple

import cv2
import torch
from torch.utils.data import get_worker_info

from ..config.loader import import_component

# A scheduler or a terminal sends them to all processes of a run; the training process decides.
SIGNALS_OF_A_RUN = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]
_PARENT_CHECK = 1.0  # seconds


class SampleAtHand(NamedTuple):
    """What a worker is at.

    Attributes:
        position: In the stream of samples; for test data the same as ``image``.
        image: Its index.
        since: Seconds of ``time.monotonic``, which all processes of a machine share.
    """

    position: int
    image: int
    since: float


class SampleTable:
    """The sample at hand of each worker, in memory that the workers share with their parent.

    Args:
        num_workers: Its number of rows.
    """

    def __init__(self, num_workers: int) -> None:
        # A float64 holds every position up to 2^53.
        self._rows = torch.zeros(num_workers, 3, dtype=torch.float64).share_memory_()

    def begin(self, position: int, image: int) -> None:
        """In a worker: it is at this sample now. Does nothing in any other process."""
        if (info := get_worker_info()) is None:
            return
        row = self._rows[info.id].numpy()
        row[2] = 0.0  # the row holds nothing while its numbers change
        row[0], row[1] = position, image
        row[2] = time.monotonic()

    def end(self) -> None:
        """In a worker: it is at no sample any more."""
        if (info := get_worker_info()) is not None:
            self._rows[info.id, 2] = 0.0

    def at_hand(self, worker: int) -> SampleAtHand | None:
        """What a worker is at, or was when it died."""
        position, image, since = self._rows[worker].tolist()
        return SampleAtHand(int(position), int(image), since) if since else None


class ImportedModules:
    """A config's ``imports``; unpickling it imports them in a worker that begins with nothing.

    Args:
        entries: Names of modules and paths of files.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self.entries = list(entries)
        for entry in self.entries:
            import_component(entry, "a data worker")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.entries,)


def init_worker(_: int) -> None:
    """Prepare a worker; torch calls it first of all, with the worker's number."""
    # Workers stand side by side; threads of their own would only get in each other's way.
    cv2.setNumThreads(0)
    for number in SIGNALS_OF_A_RUN:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        # The parent has blocked them until here; what has come meanwhile is dropped now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS_OF_A_RUN)
    sys.excepthook = _tell_unless_the_peer_is_gone
    threading.Thread(target=_end_with_the_parent, daemon=True, name="parent-watch").start()


def _end_with_the_parent() -> None:
    # torch looks between two batches only; a sample that hangs would keep the worker for ever.
    process, parent = os.getppid(), multiprocessing.parent_process()
    while os.getppid() == process and (parent is None or parent.is_alive()):
        time.sleep(_PARENT_CHECK)
    os._exit(1)


def _tell_unless_the_peer_is_gone(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    # A thread of multiprocessing hands tensors over, and calls this where the other side was
    # killed, or interrupted, while it took one. That is the other side's to tell.
    in_thread = threading.current_thread() is not threading.main_thread()
    if not (in_thread and isinstance(error, (ConnectionError, EOFError))):
        sys.__excepthook__(kind, error, trace)
