"""Evaluation during training, and how other hooks find what it measured."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ...errors import ConfigError, did_you_mean
from ...ranges import NonNegativeInt
from ...utils.random_state import RandomState
from ...utils.stopping import STOP
from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer

# What the tasks of the plain weights are called, where those of the average are evaluated too.
PLAIN = "_plain"
# Values that were measured with others of these do not compare.
MEASURED_WITH = ("data.test", "data.test.*", "test.evaluators*")


class Measurement(HookBase):
    """A hook that measures the model now and then, into ``trainer.results``."""

    def is_due(self, trainer: Trainer) -> bool:
        """Whether it measures after this step."""
        raise NotImplementedError

    def put(self, trainer: Trainer, results: dict[str, Any]) -> None:
        """Add ``{data set: {task: {metric: value}}}`` to what was measured after this step."""
        done = trainer.iter + 1
        merged = trainer.results if trainer.results_iter == done else {}
        trainer.results = merge_results(merged, results)
        trainer.results_iter = done
        several = len(trainer.results) > 1
        trainer.buffer.put(flatten_results(results, with_datasets=several))


@HOOK_REGISTRY.register
class Evaluation(Measurement):
    """Evaluates the model, with its averaged weights if there are any.

    Args:
        evaluate: Maps the model, and a folder of the run for the files, to
            ``{data set: {task: {metric: value}}}``.
        period: Iterations between evaluations, `test.eval_period` if not given; 0 evaluates at the
            end only.
        without_average: Where there are averaged weights, evaluate the plain ones too, as tasks
            such as ``bbox_plain``; their files lie in ``inference_plain``.
    """

    def __init__(
        self,
        *,
        evaluate: Callable[..., dict[str, Any]],
        period: NonNegativeInt | None = None,
        without_average: bool = False,
    ) -> None:
        self.evaluate = evaluate
        self.period = period
        self.without_average = without_average

    def is_due(self, trainer: Trainer) -> bool:
        """Every ``period`` iterations and at the end."""
        return trainer.is_last_step or bool(self.period and (trainer.iter + 1) % self.period == 0)

    def after_step(self, trainer: Trainer) -> None:
        """Evaluate where it is due."""
        if not self.is_due(trainer):
            return
        with untouched(trainer.model):
            with trainer.inference_weights():
                results = self.evaluate(trainer.model)
            if self.without_average and trainer.ema is not None:
                plain = self.evaluate(trainer.model, folder=f"inference{PLAIN}")
                renamed = {
                    dataset: {f"{task}{PLAIN}": metrics for task, metrics in tasks.items()}
                    for dataset, tasks in plain.items()
                }
                results = merge_results(results, renamed)
        self.put(trainer, results)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Afterwards every module has the training mode, and every generator the state, of before.

    A loader draws a number when it begins: a run shall not depend on how often it is evaluated.
    So a loop over test data within it can be broken off, and done again by the resumed run.
    """
    modes = [(module, module.training) for module in model.modules()]
    state = RandomState.capture()
    try:
        with STOP.breakable():
            yield
    finally:
        # The attribute itself: train() would also set children, and frozen layers override it.
        for module, mode in modes:
            module.training = mode
        state.restore()


def merge_results(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Results of both, data set by data set; of a task that both have, the second's."""
    names = [*first, *(name for name in second if name not in first)]
    return {name: {**first.get(name, {}), **second.get(name, {})} for name in names}


def flatten_results(
    results: dict[str, Any], *, with_datasets: bool | None = None
) -> dict[str, float]:
    """Results by ``task/metric``, or ``data set/task/metric``.

    Args:
        results: ``{data set: {task: {metric: value}}}``.
        with_datasets: Name the data sets; None: where there are several.
    """
    if with_datasets is None:
        with_datasets = len(results) > 1
    return {
        "/".join((*([dataset] if with_datasets else []), task, metric)): value
        for dataset, tasks in results.items()
        for task, metrics in tasks.items()
        for metric, value in metrics.items()
    }


def main_metric(trainer: Trainer) -> str:
    """The metric that a model is judged by where a hook names none: AP, or top-1 accuracy."""
    task = getattr(trainer.model, "task", "detection")
    return "classification/top1" if task == "classification" else "bbox/AP"


def metric_value(trainer: Trainer, metric: str, hook_name: str) -> float | None:
    """The value of a metric that was measured after this step; None if it was not measured now.

    Args:
        trainer: The run.
        metric: ``task/metric``, such as ``bbox/AP`` or ``val/total_loss``, or with the name of a
            data set before it; without one, where there are several, it is the first one's.
        hook_name: Who asks, for the error.

    Raises:
        ConfigError: What has been measured has no such metric.
    """
    if trainer.results_iter != trainer.iter + 1:
        return None
    known = flatten_results(trainer.results)
    named = flatten_results(trainer.results, with_datasets=True)
    first = next(iter(trainer.results), "")
    for values, name in ((known, metric), (named, metric), (named, f"{first}/{metric}")):
        if name in values:
            return values[name]
    # Evaluation and validation loss may have periods of their own.
    measured = {name.rpartition("/")[0] for name in [*known, *named]}
    hooks = [hook for hook in trainer.hooks if isinstance(hook, Measurement)]
    if metric.rpartition("/")[0] not in measured and not all(h.is_due(trainer) for h in hooks):
        return None
    advice = ""
    if metric.partition("/")[0] == "val" or "/val/" in metric:
        advice = " The losses on the test data come with train.hooks: [{name: ValidationLoss}]."
    raise ConfigError(
        f"hook '{hook_name}': no metric '{metric}'{did_you_mean(metric, known)} "
        f"Evaluation gave: {', '.join(known)}.{advice} Set it by "
        f"train.hooks: [{{name: {hook_name}, metric: ...}}]"
    )
