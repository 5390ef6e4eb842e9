"""The contract of an evaluator, and the loop that feeds it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeAlias

import torch
from torch import nn

from ..utils.distributed import gather_objects, is_main_process
from .progress import LOG_PERIOD, with_progress

Batch: TypeAlias = list[dict[str, Any]]
Results: TypeAlias = dict[str, dict[str, float]]


class DatasetEvaluator(ABC):
    """Collects what a model says of a data set, batch by batch, and turns it into numbers.

    In a distributed run every process feeds an evaluator of its own, and ``evaluate`` is called
    in all of them: it gathers what the others have (``utils.distributed.gather_objects``).
    """

    task: ClassVar[str | None] = None
    """What models it judges, "detection" or "classification"; None: any."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything; called before the first batch."""

    @abstractmethod
    def process(self, inputs: Batch, outputs: Batch) -> None:
        """Take in one batch.

        Args:
            inputs: What the model was given: dicts with ``image_id``, ``file_name``, and the
                ``height`` and ``width`` of the original image.
            outputs: What it returned, in the same order: ``{"instances": Instances}`` with
                ``pred_boxes`` (D, 4) XYXY in pixels of the original image, ``scores`` (D,) and
                ``pred_classes`` (D,); of a classifier ``{"scores": (K,)}``.
        """

    @abstractmethod
    def evaluate(self) -> Results:
        """The numbers, as ``{task: {metric: value}}``, the same in every process."""


def inference_on_dataset(
    model: Callable[[Batch], Batch],
    loader: Iterable[Batch],
    evaluators: DatasetEvaluator | Sequence[DatasetEvaluator],
    *,
    log_period: float = LOG_PERIOD,
) -> Results:
    """Run a model over a data set and evaluate what it finds.

    The model runs in eval mode and without autograd; afterwards, also after an error, every module
    has the training mode that it had. A log line comes now and then; where stderr is a terminal a
    progress bar shows, too.

    In a distributed run each process passes a loader of its own share, and all of them must call
    this function. An image that several processes, or one process twice, have seen counts once.

    Args:
        model: Batches of dicts to a list of dicts, an ``nn.Module`` or a plain function.
        loader: The batches of this process.
        evaluators: One or several, each fed with every batch.
        log_period: Seconds between two log lines.

    Returns:
        ``{task: {metric: value}}`` of all evaluators together, the same in every process.

    Raises:
        DataError: An image is not in the data set that an evaluator was given.
        ValueError: The model does not return one output an image, or two evaluators return the
            same task.
    """
    if isinstance(evaluators, DatasetEvaluator):
        evaluators = [evaluators]
    for evaluator in evaluators:
        evaluator.reset()
    with _evaluation_mode(model), torch.inference_mode():
        for inputs in with_progress(loader, "inference", log_period):
            outputs = model(inputs)
            if len(outputs) != len(inputs):
                raise ValueError(f"{len(inputs)} images went in, {len(outputs)} outputs came out")
            for evaluator in evaluators:
                evaluator.process(inputs, outputs)
    return _merge([evaluator.evaluate() for evaluator in evaluators])


def in_main_process(function: Callable[[], Results]) -> Results:
    """Call once, and hand the result, or the failure, to every process, so that none waits."""
    results: Results | None = None
    error: Exception | None = None
    if is_main_process():
        try:
            results = function()
        except Exception as caught:
            error = caught
    results, message = gather_objects((results, repr(error)))[0]
    if error is not None:
        raise error
    if results is None:
        raise RuntimeError(f"the evaluation failed in the main process: {message}")
    return results


def _merge(parts: Iterable[Results]) -> Results:
    merged: Results = {}
    for part in parts:
        for task, metrics in part.items():
            if task in merged:
                raise ValueError(f"two evaluators return '{task}'; evaluate them one by one")
            merged[task] = metrics
    return merged


@contextmanager
def _evaluation_mode(model: Callable[[Batch], Batch]) -> Iterator[None]:
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    if isinstance(model, nn.Module):
        model.eval()
    try:
        yield
    finally:
        # The attribute itself: train() would also set children, and frozen layers override it.
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
