"""tools/train_net.py in this process, with a record of what it does."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detlite import Config, HookBase, Trainer
from detlite.cli import train, training
from detlite.data import TrainingData
from detlite.utils.cli import run_cli
from soaking.record import Record

_POINTS = ("before_train", "before_step", "after_backward", "after_step", "after_train", "close")


class Watcher(HookBase):
    """Notes the images and the loss of every step, and the end of every iteration.

    Args:
        record: Where it notes them.
    """

    def __init__(self, record: Record) -> None:
        self.record = record

    def before_step(self, trainer: Trainer) -> None:
        """The iteration before is finished with all of its hooks."""
        self.record.enter("step", trainer.start_iter, trainer.iter)

    def after_backward(self, trainer: Trainer) -> None:
        """Exact, so that the first step that differs between two runs can be told."""
        files = [str(sample["file_name"]) for sample in trainer.batch]
        loss = float(trainer.metrics["total_loss"]).hex()
        self.record.put("steps", [trainer.iter, loss, files])


def train_watched(arguments: Sequence[str], folder: Path) -> None:
    """Train with the arguments of tools/train_net.py; the process ends with its exit code.

    Args:
        arguments: The command line.
        folder: Where the record goes.
    """
    record = Record(folder, int(os.environ.get("RANK", 0)))
    record.enter("start")
    _watch_reads(record)
    build = training.build_trainer

    def build_watched(config: Config, *, resume: bool = False) -> Trainer:
        trainer = build(config, resume=resume)
        watch(trainer, record)
        return trainer

    training.build_trainer = build_watched  # type: ignore[assignment]
    sys.argv = ["train_net.py", *arguments]
    try:
        run_cli(train.main, train.parser())
    finally:
        record.put("modules", sorted(sys.modules))


def watch(trainer: Trainer, record: Record) -> None:
    """Have a trainer note every call of a hook, and every step."""

    def marked(phase: str, call: Callable[[Trainer], None]) -> Callable[[Trainer], None]:
        def run(trainer: Trainer) -> None:
            done = trainer.iter + (phase.endswith(("after_train", "close")))
            record.enter(phase, trainer.start_iter, done)
            call(trainer)
            record.enter(f"behind {phase}", trainer.start_iter, done)

        return run

    for hook in trainer.hooks:
        for point in _POINTS:
            if getattr(type(hook), point) is not getattr(HookBase, point):
                phase = f"{type(hook).__name__}.{point}"
                setattr(hook, point, marked(phase, getattr(hook, point)))
    trainer.hooks.insert(0, Watcher(record))
    record.enter("loader", trainer.start_iter, trainer.start_iter)


def _watch_reads(record: Record) -> None:
    read = TrainingData.__getitem__

    def read_watched(data: TrainingData, sample: Any) -> Any:
        record.put("reads", int(sample.position))
        return read(data, sample)

    TrainingData.__getitem__ = read_watched  # type: ignore[method-assign]
