"""Components that fail on purpose; configs name this file under ``imports``."""

import os
import pathlib
import signal
import time
from collections.abc import Callable

import torch

from detlite import DATASET_REGISTRY, HOOK_REGISTRY, HookBase, Trainer
from detlite.data import read_image
from detlite.data.datasets import Shapes

# What `DoAt` does, by iteration; tests in the same process put it here.
ACTIONS: dict[int, Callable[[Trainer], None]] = {}


@HOOK_REGISTRY.register
class DoAt(HookBase):
    """Do before an iteration what ``ACTIONS`` says."""

    def before_step(self, trainer):
        if trainer.iter in ACTIONS:
            ACTIONS[trainer.iter](trainer)


@HOOK_REGISTRY.register
class Drift(HookBase):
    """Move a weight a little further each time, by a count that no checkpoint holds."""

    def __init__(self):
        self.count = 0

    @torch.no_grad()
    def before_step(self, trainer):
        self.count += 1
        trainer.model.get_parameter("neck.outputs.p3.weight").add_(1e-3 * self.count)


@DATASET_REGISTRY.register
class FaultyShapes(Shapes):
    """Shapes of which one image fails.

    Args:
        bad: Its index.
        fault: "die" kills the process, "hang" waits a minute, else the path of a file that is read.
        mark: The path of a file; where it is missing it is made, where it is there all is well.
            Always a fault if empty.
    """

    def __init__(self, *, bad: int, fault: str, mark: str = "", **shapes):
        super().__init__(**shapes)
        self.bad, self.fault, self.mark = bad, fault, mark

    def read_image(self, i):
        if i == self.bad and not (self.mark and os.path.exists(self.mark)):
            if self.mark:
                pathlib.Path(self.mark).touch()
            if self.fault == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.fault == "hang":
                time.sleep(60)
            else:
                return read_image(self.fault)
        return super().read_image(i)
