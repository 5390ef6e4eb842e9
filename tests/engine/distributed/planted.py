"""Hooks of the tests: what a run did, and faults that befall one of its processes."""

import json
import os
import signal
import zlib
from pathlib import Path
from typing import Literal

from detlite import EVALUATOR_REGISTRY, HOOK_REGISTRY, DatasetEvaluator, HookBase
from detlite.errors import DataError
from detlite.utils.distributed import gather_objects, rank


@HOOK_REGISTRY.register
class RecordSamples(HookBase):
    """Writes ``[iteration, loss, [[image id, checksum of the augmented image], ...]]`` by rank.

    Args:
        output_dir: Folder of the run.
    """

    def __init__(self, *, output_dir: str) -> None:
        self.path = Path(output_dir) / "samples" / f"rank_{rank()}.jsonl"

    def after_backward(self, trainer):
        """One line a step."""
        samples = [[s["image_id"], zlib.crc32(s["image"].numpy())] for s in trainer.batch]
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a") as file:
            entry = [trainer.iter, float(trainer.metrics["total_loss"]), samples]
            file.write(json.dumps(entry) + "\n")


@HOOK_REGISTRY.register
class Fault(HookBase):
    """Does something to one process in one iteration, once in the life of an output folder.

    Args:
        output_dir: Folder of the run.
        what: "error", "broken image", or a signal that the process sends to itself.
        rank: The process.
        iteration: Before whose step it does so.
        again: In every start of the run.
    """

    def __init__(
        self,
        *,
        output_dir: str,
        what: Literal["error", "broken image", "SIGKILL", "SIGTERM", "SIGSTOP", "SIGUSR1"],
        rank: int,
        iteration: int,
        again: bool = False,
    ) -> None:
        self.marker = Path(output_dir) / f"fault_{what}_{rank}_{iteration}"
        self.what = what
        self.rank = rank
        self.iteration = iteration
        self.again = again

    def after_backward(self, trainer):
        """Fail, if it is time."""
        if (rank(), trainer.iter) != (self.rank, self.iteration):
            return
        if self.marker.exists() and not self.again:
            return
        self.marker.touch()
        if self.what == "error":
            raise RuntimeError(f"planted in rank {rank()}")
        if self.what == "broken image":
            raise DataError(f"planted in rank {rank()}")
        os.kill(os.getpid(), getattr(signal, self.what))


@EVALUATOR_REGISTRY.register
class FailingEvaluator(DatasetEvaluator):
    """Fails on one rank, where the others wait for it.

    Args:
        dataset: The ground truth.
        output_dir: Where files would be written.
        rank: The process.
    """

    def __init__(self, *, dataset, output_dir, rank: int) -> None:
        self.rank = rank

    def reset(self):
        """Nothing to forget."""

    def process(self, inputs, outputs):
        """Nothing to remember."""

    def evaluate(self):
        """Fail there; elsewhere wait."""
        if rank() == self.rank:
            raise RuntimeError(f"planted in rank {rank()}")
        gather_objects(None)
        return {"none": {"AP": 0.0}}


@EVALUATOR_REGISTRY.register
class StoppedEvaluator(DatasetEvaluator):
    """One rank gets SIGTERM with its first batch, once in the life of an output folder.

    Args:
        dataset: The ground truth.
        output_dir: Where files would be written.
        rank: The process.
    """

    def __init__(self, *, dataset, output_dir, rank: int) -> None:
        self.rank = rank
        self.marker = Path(output_dir).parents[1] / "stopped_evaluation"

    def reset(self):
        """Nothing to forget."""

    def process(self, inputs, outputs):
        """Ask for a stop."""
        if rank() == self.rank and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGTERM)

    def evaluate(self):
        """A number that tells that it came to its end."""
        return {"stopped": {"done": 1.0}}
