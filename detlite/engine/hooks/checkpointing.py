"""When checkpoints are written."""

import logging
import math
from typing import Any, Literal

from ...checkpoint import Checkpointer, megabytes
from ...errors import CheckpointError
from ...ranges import PositiveInt
from ...utils.distributed import is_main_process
from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer
from .evaluation import MEASURED_WITH, main_metric, metric_value

logger = logging.getLogger(__name__)


@HOOK_REGISTRY.register
class PeriodicCheckpointer(HookBase):
    """Writes all that a resumed run needs now and then, and ``model_final.pth`` at the end.

    With averaged weights the final ones are those; the plain ones lie beside them, in
    ``model_final_plain.pth``.

    Args:
        checkpointer: The checkpoints of the run.
        period: Iterations between checkpoints, `train.checkpoint_period` if not given; one is
            written at the end, and where the run is stopped, in any case.
        background: Write them while training goes on; at most one is being written.
    """

    def __init__(
        self,
        *,
        checkpointer: Checkpointer,
        period: PositiveInt | None = None,
        background: bool = True,
    ) -> None:
        self.checkpointer = checkpointer
        self.period = period
        self.background = background

    def before_train(self, trainer: Trainer) -> None:
        """See at once that every hook's state can be written."""
        state = trainer.state_dict()
        if is_main_process():
            self.checkpointer.check(state)

    def after_step(self, trainer: Trainer) -> None:
        """Write a checkpoint where one is due or asked for."""
        ends = trainer.is_last_step or trainer.stop_reason is not None
        asked, trainer.checkpoint_requested = trainer.checkpoint_requested, False
        if ends or asked or (self.period and (trainer.iter + 1) % self.period == 0):
            self._save(trainer, background=self.background and not ends)

    def after_interruption(self, trainer: Trainer) -> None:
        """Write a checkpoint to go on from."""
        self._save(trainer, background=False)

    def _save(self, trainer: Trainer, *, background: bool) -> None:
        state = trainer.state_dict()
        if is_main_process():
            self.checkpointer.save_periodic(trainer.iter, state, background=background)

    def after_train(self, trainer: Trainer) -> None:
        """Write the weights to predict with."""
        if not is_main_process():
            return
        path = save_inference_weights(self.checkpointer, "model_final", trainer)
        if trainer.ema:
            plain = {"model": trainer.model.state_dict(), "iteration": trainer.iter}
            self.checkpointer.save("model_final_plain", plain)
        logger.info("saved %s", path)
        sizes = self.checkpointer.disk_use()
        listed = ", ".join(f"{name} {megabytes(size)}" for name, size in sizes.items())
        logger.info(
            "the checkpoints take %s of the disk: %s", megabytes(sum(sizes.values())), listed
        )

    def close(self, trainer: Trainer) -> None:
        """Let the last one be written whole."""
        self.checkpointer.wait()


@HOOK_REGISTRY.register
class BestCheckpointer(HookBase):
    """Keeps the weights that evaluated best, as ``model_best.pth``.

    Args:
        checkpointer: The checkpoints of the run.
        metric: ``task/metric``, with the data set's name before it where there are several; null:
            ``bbox/AP`` of a detector, ``classification/top1`` of a classifier.
        mode: Whether the greatest or the smallest value is the best.
    """

    state_depends_on = MEASURED_WITH

    def __init__(
        self,
        *,
        checkpointer: Checkpointer,
        metric: str | None = None,
        mode: Literal["max", "min"] = "max",
    ) -> None:
        self.checkpointer = checkpointer
        self.metric = metric
        self.mode = mode
        self.best: float | None = None
        self.best_iter = -1

    def after_step(self, trainer: Trainer) -> None:
        """Compare, after an evaluation."""
        metric = self.metric or main_metric(trainer)
        value = metric_value(trainer, metric, type(self).__name__)
        if value is None or math.isnan(value):
            return
        if self.best is not None and not self._is_better(value, self.best):
            return
        self.best, self.best_iter = value, trainer.iter
        if not is_main_process():
            return
        try:
            path = save_inference_weights(self.checkpointer, "model_best", trainer)
        except CheckpointError as error:
            # As with the periodic ones, a full disk does not end the run.
            logger.error("best %s so far: %.4f, and %s", metric, value, error)
            return
        logger.info("best %s so far: %.4f, saved %s", metric, value, path)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and what it is of."""
        kind = {"metric": self.metric, "mode": self.mode}
        return {"best": self.best, "best_iter": self.best_iter, **kind}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the best value so far; one of another metric does not compare."""
        kind = state.get("metric", self.metric), state.get("mode", self.mode)
        if kind == (self.metric, self.mode):
            self.best, self.best_iter = state["best"], state["best_iter"]

    def _is_better(self, value: float, best: float) -> bool:
        return value > best if self.mode == "max" else value < best


def save_inference_weights(checkpointer: Checkpointer, name: str, trainer: Trainer) -> Any:
    """Write ``<name>.pth`` with the weights to predict with, and nothing of the run."""
    weights = trainer.ema.weights if trainer.ema else trainer.model.state_dict()
    return checkpointer.save(name, {"model": weights, "iteration": trainer.iter})
