"""Where the summaries of metrics go: terminal, ``metrics.json``, TensorBoard."""

import datetime
import json
import logging
import math
from pathlib import Path
from typing import Any

from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer

logger = logging.getLogger(__name__)


@HOOK_REGISTRY.register
class ConsoleWriter(HookBase):
    """A line of the log: time left, iteration, losses, seconds a step, learning rate, memory."""

    def after_step(self, trainer: Trainer) -> None:
        """Write a line where a summary is due."""
        summary = trainer.summary
        if summary is None:
            return
        seconds = summary.get("time", 0.0)
        left = datetime.timedelta(seconds=int(seconds * (trainer.max_iter - trainer.iter - 1)))
        losses = [f"{k}: {v:.4g}" for k, v in summary.items() if "loss" in k and "/" not in k]
        logger.info(
            "eta: %s  iter: %d/%d  %s  time: %.4f  data_time: %.4f  lr: %.4g  max_mem: %.0fM",
            left,
            trainer.iter,
            trainer.max_iter,
            "  ".join(losses),
            seconds,
            summary.get("data_time", 0.0),
            summary.get("lr", math.nan),
            summary["memory"],
        )


@HOOK_REGISTRY.register
class JSONWriter(HookBase):
    """``metrics.json`` in the output folder: one JSON object a line.

    A resumed run goes on in the same file; lines of iterations that it repeats are dropped.

    Args:
        output_dir: Folder of the file.
    """

    def __init__(self, *, output_dir: str) -> None:
        self.path = Path(output_dir) / "metrics.json"

    def before_train(self, trainer: Trainer) -> None:
        """Keep what was written before the iteration at which the run begins."""
        kept = []
        for line in self.path.read_text().splitlines() if self.path.is_file() else []:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                # The last line of a run that was killed while it wrote.
                continue
            if entry.get("iteration", -1) < trainer.start_iter:
                kept.append(line + "\n")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(kept))

    def after_step(self, trainer: Trainer) -> None:
        """Write a line where a summary is due."""
        if trainer.summary is None:
            return
        # JSON knows no NaN.
        values = {k: v if math.isfinite(v) else None for k, v in trainer.summary.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"iteration": trainer.iter, **values}) + "\n")


@HOOK_REGISTRY.register
class TensorBoardWriter(HookBase):
    """Curves for TensorBoard, in the folder ``tensorboard`` of the output folder.

    Without the package tensorboard, which is optional, it only says how to get it.

    Args:
        output_dir: Folder of the run.
    """

    def __init__(self, *, output_dir: str) -> None:
        self.folder = Path(output_dir) / "tensorboard"
        self._writer: Any = None

    def before_train(self, trainer: Trainer) -> None:
        """Open the file; what an interrupted run wrote of later iterations is hidden."""
        try:
            # Here and not above: an optional dependency, and slow to import.
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.info("no curves for TensorBoard; `pip install tensorboard` brings them")
            return
        self._writer = SummaryWriter(str(self.folder), purge_step=trainer.start_iter)

    def after_step(self, trainer: Trainer) -> None:
        """Write the values where a summary is due."""
        if trainer.summary is None or self._writer is None:
            return
        for name, value in trainer.summary.items():
            self._writer.add_scalar(name, value, trainer.iter)

    def close(self, trainer: Trainer) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
