"""A proof on the user's own config that an interrupted run ends in the same bits."""

import copy
import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from ..checkpoint import compare_checkpoints
from ..config.schema import Config
from ..registry import Block
from ..solver import scale_to_batch
from ..utils.distributed import broadcast_object, gather_objects, is_main_process
from .build import build_trainer
from .hook_base import HookBase
from .trainer import Trainer

logger = logging.getLogger(__name__)


@dataclass
class ResumeReport:
    """What the comparison of two runs has found.

    Attributes:
        interrupted_at: Iterations done when one of them was interrupted.
        iterations: Iterations done by both at the end.
        num_values: Tensors, numbers and strings that were compared.
        differences: Those that differ, by name, with what differs; empty if the resume is exact.
        samples: Training images after the interruption, over all ranks.
    """

    interrupted_at: int
    iterations: int
    num_values: int = 0
    differences: list[str] = field(default_factory=list)
    samples: int = 0


def check_resume(config: Config, iterations: int = 6) -> ResumeReport:
    """Train a few iterations twice, once interrupted and resumed, and compare all that is left.

    Runs in temporary folders; nothing is evaluated. To be called on every rank.

    Args:
        config: Of the run that shall be resumable.
        iterations: Of each run; the interruption comes in the middle.
    """
    half = max(iterations // 2, 1)
    config = scale_to_batch(copy.deepcopy(config))
    # Of all three runs, since schedules depend on it; the end of a run is not what is asked for.
    config.solver.max_iter = max(config.solver.max_iter, iterations + 1)
    config.train.checkpoint_period = iterations
    with tempfile.TemporaryDirectory() as made:
        folder = Path(broadcast_object(made))
        logger.info("%d iterations without an interruption", iterations)
        whole = _run(config, folder / "whole", iterations)
        logger.info("%d iterations, then an interruption", half)
        _run(config, folder / "broken", half)
        logger.info("going on to iteration %d", iterations)
        resumed = _run(config, folder / "broken", iterations, resume=True)
        report = ResumeReport(half, iterations)
        if is_main_process():
            paths = [_last_checkpoint(folder / name) for name in ("whole", "broken")]
            report.num_values, report.differences = compare_checkpoints(paths[0], paths[1])
        report = broadcast_object(report)
    expected = gather_objects(whole)
    for rank, (found, all_files) in enumerate(zip(gather_objects(resumed), expected, strict=True)):
        report.samples += len(found)
        if found != all_files[len(all_files) - len(found) :]:
            report.differences.append(f"the training images of rank {rank} and their order")
    return report


class _Recorder(HookBase):
    """Writes down the images of each step, and stops as a signal does."""

    def __init__(self, stop_after: int) -> None:
        self.stop_after = stop_after
        self.files: list[str] = []

    def after_backward(self, trainer: Trainer) -> None:
        self.files += [str(sample.get("file_name")) for sample in trainer.batch]

    def after_step(self, trainer: Trainer) -> None:
        if trainer.iter + 1 == self.stop_after:
            trainer.request_stop("signal")


def _run(config: Config, folder: Path, stop_after: int, *, resume: bool = False) -> list[str]:
    config = copy.deepcopy(config)
    config.output_dir = str(folder)
    config.test.eval_period = 0
    quiet = ("ConsoleWriter", "TensorBoardWriter", "ProgressBar", "WandbWriter", "MLflowWriter")
    kept = [block for block in config.train.hooks if block.name not in quiet]
    config.train.hooks = [*kept, *(Block(name=name, enabled=False) for name in quiet)]
    trainer = build_trainer(config, resume=resume)
    recorder = _Recorder(stop_after)
    trainer.hooks.insert(0, recorder)
    trainer.train()
    return recorder.files


def _last_checkpoint(folder: Path) -> Path:
    return folder / (folder / "last_checkpoint").read_text().strip()
