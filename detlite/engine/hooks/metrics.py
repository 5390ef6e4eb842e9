"""How long steps take, and when a line of the log is due."""

import resource
import sys
import time

import torch

from ...ranges import PositiveInt
from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer


@HOOK_REGISTRY.register
class IterationTimer(HookBase):
    """Seconds of a step, with data and hooks, as the metric ``time``.

    Evaluation is left out: a step's time counts from the end of the step's own hooks before it.
    """

    def __init__(self) -> None:
        self._step_start = 0.0

    def before_step(self, trainer: Trainer) -> None:
        """Begin a step."""
        self._step_start = time.perf_counter()

    def after_step(self, trainer: Trainer) -> None:
        """End a step."""
        trainer.step_seconds = time.perf_counter() - self._step_start
        trainer.buffer.put({"time": trainer.step_seconds})


@HOOK_REGISTRY.register
class MetricSummary(HookBase):
    """Averages the metrics for the writers, which stand behind it.

    Args:
        period: Iterations between summaries, `train.log_period` if not given; one also comes with
            every evaluation and at the end.
    """

    def __init__(self, *, period: PositiveInt | None = None) -> None:
        self.period = period

    def after_step(self, trainer: Trainer) -> None:
        """Make ``trainer.summary``, or None where none is due."""
        done = trainer.iter + 1
        due = trainer.is_last_step or done == trainer.results_iter
        due = due or (self.period is not None and done % self.period == 0)
        trainer.summary = trainer.buffer.take() | {"memory": peak_memory()} if due else None


def peak_memory() -> float:
    """MiB at most so far: of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
