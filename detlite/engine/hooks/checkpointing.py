"""When checkpoints are written."""

import logging
import math
from typing import Any, Literal

from ...checkpoint import Checkpointer
from ...errors import ConfigError, did_you_mean
from ...ranges import PositiveInt
from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer
from .evaluation import flatten_results

logger = logging.getLogger(__name__)


@HOOK_REGISTRY.register
class PeriodicCheckpointer(HookBase):
    """Writes all that a resumed run needs now and then, and ``model_final.pth`` at the end.

    Args:
        checkpointer: The checkpoints of the run.
        period: Iterations between checkpoints, `train.checkpoint_period` if not given; one is
            written at the end in any case.
    """

    def __init__(self, *, checkpointer: Checkpointer, period: PositiveInt | None = None) -> None:
        self.checkpointer = checkpointer
        self.period = period

    def after_step(self, trainer: Trainer) -> None:
        """Write a checkpoint where one is due."""
        done = trainer.iter + 1
        if done == trainer.max_iter or (self.period and done % self.period == 0):
            self.checkpointer.save_periodic(trainer.iter, trainer.state_dict())

    def after_train(self, trainer: Trainer) -> None:
        """Write the weights to predict with."""
        path = save_inference_weights(self.checkpointer, "model_final", trainer)
        logger.info("saved %s", path)


@HOOK_REGISTRY.register
class BestCheckpointer(HookBase):
    """Keeps the weights that evaluated best, as ``model_best.pth``.

    Args:
        checkpointer: The checkpoints of the run.
        metric: ``task/metric``, with the data set's name before it where there are several.
        mode: Whether the greatest or the smallest value is the best.
    """

    def __init__(
        self,
        *,
        checkpointer: Checkpointer,
        metric: str = "bbox/AP",
        mode: Literal["max", "min"] = "max",
    ) -> None:
        self.checkpointer = checkpointer
        self.metric = metric
        self.mode = mode
        self.best: float | None = None
        self.best_iter = -1

    def after_step(self, trainer: Trainer) -> None:
        """Compare, after an evaluation."""
        if trainer.results_iter != trainer.iter + 1:
            return
        value = self._value(trainer.results)
        if math.isnan(value) or (self.best is not None and not self._is_better(value, self.best)):
            return
        self.best, self.best_iter = value, trainer.iter
        path = save_inference_weights(self.checkpointer, "model_best", trainer)
        logger.info("best %s so far: %.4f, saved %s", self.metric, value, path)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best, "best_iter": self.best_iter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the best value so far."""
        self.best, self.best_iter = state["best"], state["best_iter"]

    def _is_better(self, value: float, best: float) -> bool:
        return value > best if self.mode == "max" else value < best

    def _value(self, results: dict[str, Any]) -> float:
        values = flatten_results(results)
        # With several data sets a metric without a data set's name means the first one's.
        first = next(iter(results), "")
        for name in (self.metric, f"{first}/{self.metric}"):
            if name in values:
                return values[name]
        raise ConfigError(
            f"hook 'BestCheckpointer': no metric '{self.metric}'"
            f"{did_you_mean(self.metric, values)} Evaluation gave: {', '.join(values)}. Set it by "
            "train.hooks: [{name: BestCheckpointer, metric: ...}]"
        )


def save_inference_weights(checkpointer: Checkpointer, name: str, trainer: Trainer) -> Any:
    """Write ``<name>.pth`` with the weights to predict with, and nothing of the run."""
    weights = trainer.ema.weights if trainer.ema else trainer.model.state_dict()
    return checkpointer.save(name, {"model": weights, "iteration": trainer.iter})
