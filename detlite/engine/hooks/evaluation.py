"""Evaluation during training."""

from collections.abc import Callable
from typing import Any

from torch import nn

from ...ranges import NonNegativeInt
from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer


@HOOK_REGISTRY.register
class Evaluation(HookBase):
    """Evaluates the model, with its averaged weights if there are any.

    Args:
        evaluate: Maps the model to ``{data set: {task: {metric: value}}}``.
        period: Iterations between evaluations, `test.eval_period` if not given; 0 evaluates at the
            end only.
    """

    def __init__(
        self,
        *,
        evaluate: Callable[[nn.Module], dict[str, Any]],
        period: NonNegativeInt | None = None,
    ) -> None:
        self.evaluate = evaluate
        self.period = period

    def after_step(self, trainer: Trainer) -> None:
        """Evaluate where it is due."""
        done = trainer.iter + 1
        if done != trainer.max_iter and not (self.period and done % self.period == 0):
            return
        with trainer.inference_weights():
            trainer.results = self.evaluate(trainer.model)
        trainer.results_iter = done
        trainer.buffer.put(flatten_results(trainer.results))


def flatten_results(results: dict[str, Any]) -> dict[str, float]:
    """Results by ``task/metric``, or ``data set/task/metric`` where there are several data sets."""
    return {
        "/".join((*([dataset] if len(results) > 1 else []), task, metric)): value
        for dataset, tasks in results.items()
        for task, metrics in tasks.items()
        for metric, value in metrics.items()
    }
