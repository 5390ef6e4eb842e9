"""The end of a run that no longer gets better."""

import logging
import math
from typing import Any, Literal

from ...ranges import NonNegativeFloat, PositiveInt
from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer
from .evaluation import MEASURED_WITH, main_metric, metric_value

logger = logging.getLogger(__name__)


@HOOK_REGISTRY.register
class EarlyStopping(HookBase):
    """Ends the run when a metric has not become better for a number of evaluations.

    A value that is not a number counts as not better. The run ends as at its last iteration, with
    ``model_final.pth``; resumed with a greater patience it goes on.

    Args:
        metric: ``task/metric``, with the data set's name before it where there are several;
            ``val/total_loss`` needs the hook ValidationLoss; null: ``bbox/AP`` of a detector,
            ``classification/top1`` of a classifier.
        mode: Whether the greatest or the smallest value is the best.
        patience: Evaluations without a better value after which the run ends.
        min_delta: A value is better only if it differs from the best by more than this.
    """

    state_depends_on = MEASURED_WITH

    def __init__(
        self,
        *,
        metric: str | None = None,
        mode: Literal["max", "min"] = "max",
        patience: PositiveInt = 5,
        min_delta: NonNegativeFloat = 0.0,
    ) -> None:
        self.metric = metric
        self.mode = mode
        self.patience = patience
        self.min_delta = min_delta
        self.best: float | None = None
        self.best_iter = -1
        self.num_worse = 0

    def before_train(self, trainer: Trainer) -> None:
        """End a run at once that had been ended when it was resumed."""
        self._stop_if_due(trainer)

    def after_step(self, trainer: Trainer) -> None:
        """Compare, after an evaluation."""
        metric = self.metric or main_metric(trainer)
        value = metric_value(trainer, metric, type(self).__name__)
        if value is None:
            return
        if self._is_better(value):
            self.best, self.best_iter, self.num_worse = value, trainer.iter, 0
        else:
            self.num_worse += 1
        if trainer.iter + 1 < trainer.max_iter:
            self._stop_if_due(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, how long ago it was, and what it is of."""
        kind = {"metric": self.metric, "mode": self.mode}
        best = {"best": self.best, "best_iter": self.best_iter, "num_worse": self.num_worse}
        return best | kind

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with them; a value of another metric does not compare."""
        kind = state.get("metric", self.metric), state.get("mode", self.mode)
        if kind != (self.metric, self.mode):
            return
        self.best, self.best_iter = state["best"], state["best_iter"]
        self.num_worse = state["num_worse"]

    def _stop_if_due(self, trainer: Trainer) -> None:
        if self.num_worse < self.patience:
            return
        best = "never a number" if self.best is None else f"{self.best:.4f}"
        logger.info(
            "stopping early: %s was best (%s) at iteration %d, and not better by more than %g in "
            "the %d evaluations since (patience %d)",
            self.metric or main_metric(trainer),
            best,
            self.best_iter,
            self.min_delta,
            self.num_worse,
            self.patience,
        )
        trainer.request_stop("early")

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        gain = value - self.best if self.mode == "max" else self.best - value
        return gain > self.min_delta
