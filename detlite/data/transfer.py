"""How a batch goes from a worker to its parent, and the limits of the system that this meets.

Tensors go through shared memory, /dev/shm, each as an open file. torch packs a batch in a thread of
the worker whose errors reach only stderr, while the parent waits for the batch for ever. Here the
worker packs it itself, where an error is sent instead.
"""

import errno
import os
import pickle
import re
import resource
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch.multiprocessing  # noqa: F401  (teaches ForkingPickler to share tensors)
from torch.utils.data import get_worker_info
from torch.utils.data._utils.pin_memory import pin_memory

from .batch_transforms import BrokenBatch

_SHARED_MEMORY = "/dev/shm"


class PackedBatch:
    """A batch as bytes that point to its tensors in shared memory.

    Args:
        batch: Anything that can be pickled.

    Raises:
        OSError, RuntimeError: There is no room for its tensors, or no file descriptor.
    """

    def __init__(self, batch: Any) -> None:
        self._bytes = bytes(ForkingPickler.dumps(batch))

    def unpack(self) -> Any:
        """The batch; to be called once."""
        return pickle.loads(self._bytes)

    def pin_memory(self) -> Any:
        """The batch in memory that a GPU reads faster; torch asks for it."""
        return pin_memory(self.unpack())


class Collate:
    """Makes a batch of samples, and packs it where this is a worker.

    Args:
        mixer: What is done with the samples first.
    """

    def __init__(self, mixer: Callable[[Any], Any] | None) -> None:
        self.mixer = mixer

    def __call__(self, samples: Any) -> Any:
        """A batch, a ``PackedBatch``, or a batch of one ``BrokenBatch`` that says what is wrong."""
        batch = self.mixer(samples) if self.mixer else samples
        if get_worker_info() is None:
            return batch
        try:
            return PackedBatch(batch)
        except (OSError, RuntimeError) as error:
            message = describe_limit(error)
            if not message:
                raise
            return [BrokenBatch(message)]


def describe_limit(error: BaseException) -> str:
    """Which limit of the system an error comes from and what to do; "" if from none."""
    number = error.errno if isinstance(error, OSError) else None
    text = str(error)
    # A worker without a descriptor to send breaks the connection off, which is an EOFError here.
    no_files = number == errno.EMFILE or isinstance(error, EOFError)
    if no_files or "Too many open files" in text or "received 0 items" in text:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (
            f"data workers need more open files than this process may have, {limit} (ulimit -n)"
            "\n    Allow more, `ulimit -n 4096`, or do without workers: data.num_workers=0"
        )
    no_room = number == errno.ENOSPC or re.search(r"shared memory|shm", text) is not None
    if not no_room:
        return ""
    try:
        space = os.statvfs(_SHARED_MEMORY)
        size, free = (space.f_frsize * n / 1e6 for n in (space.f_blocks, space.f_bavail))
        has = f"it has {size:.1f} MB, of which {free:.1f} are free"
    except OSError as missing:
        has = f"it cannot be used, {missing.strerror}"
    return (
        f"data workers hand over batches in {_SHARED_MEMORY}, which has no room for one: {has}"
        "\n    Enlarge it (`docker run --shm-size=2g`; `mount -o remount,size=2g /dev/shm`), "
        "lower data.num_workers or data.batch_size, or do without workers: data.num_workers=0"
    )
