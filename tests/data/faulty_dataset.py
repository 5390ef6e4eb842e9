"""A data set whose images do to the process that reads them what real ones may do."""

import ctypes
import errno
import itertools
import os
import signal
import time
from collections import Counter
from pathlib import Path

import torch

from detlite.data import DetectionDataset

NUM_IMAGES = 12
WITHOUT_FAULT = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
"""The first batches of two of the images in their order."""


class FaultyDataset(DetectionDataset):
    """Plain images; image i is filled with i, and every read leaves a line in ``reads``.

    Args:
        folder: Where the reads of all processes are noted.
        num_images: Number of images.
        faults: By image, what it does, and at how many of its first reads.
    """

    def __init__(self, folder, num_images, faults=()):
        self.faults = dict(faults)
        self.notes = Path(folder) / "reads"
        super().__init__(
            folder=folder,
            name="faulty",
            categories={"box": 1},
            image_ids=list(range(num_images)),
            file_names=[f"{i}.png" for i in range(num_images)],
            sizes=[(8, 8)] * num_images,
            box_images=list(range(num_images)),
            boxes_xywh=[(1, 1, 4, 4)] * num_images,
            classes=[0] * num_images,
        )

    def reads(self):
        """How often each image was read, over all processes."""
        lines = self.notes.read_text().split() if self.notes.exists() else []
        return Counter(map(int, lines))

    def read_image(self, i):
        with self.notes.open("a") as notes:
            notes.write(f"{i}\n")
        kind, times = self.faults.get(i, ("", 0))
        if self.reads()[i] <= times:
            FAULTS[kind]()
        return torch.full((3, 8, 8), i, dtype=torch.uint8)


def _fail(number):
    raise OSError(number, os.strerror(number))


FAULTS = {
    "exit": lambda: os._exit(7),
    "sys_exit": lambda: exec("raise SystemExit(0)"),
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: time.sleep(300),
    "EIO": lambda: _fail(errno.EIO),
    "ENOENT": lambda: _fail(errno.ENOENT),
    "bug": lambda: {}["a bug"],
}


def images_of(batch):
    """The numbers of the images of a batch."""
    return [int(sample["image"][0, 0, 0]) for sample in batch]


def take(loader, num_batches):
    """Those of the first batches."""
    return [images_of(batch) for batch in itertools.islice(loader, num_batches)]


def workers_of(loader):
    """The worker processes of the iteration that is going on."""
    (run,) = loader._runs
    return run._workers
