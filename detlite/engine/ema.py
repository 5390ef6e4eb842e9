"""A moving average of the weights (Tarvainen and Valpola 2017, https://arxiv.org/abs/1703.01780)."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

# Steps as small as 0.0001 of a difference are lost in them.
_SHORT = (torch.float16, torch.bfloat16)


class ModelEMA:
    """The moving average of a model's parameters and buffers, the statistics of batch norms too.

    Weights of 16 bits are averaged in float32. Integers, such as counts, are the model's own.

    ``period`` and ``start`` are those of torchvision's references/classification/train.py
    (``--model-ema-steps``, and its warm-up, in which the average is "reset"). There the period is
    counted anew in each epoch.

    Args:
        model: Its weights are where the average begins.
        decay: Share of the old average that an update keeps.
        warmup: The share in update t is ``min(decay, (1 + t) / (warmup + t))``, so that the random
            first weights fade quickly; 0 for none.
        period: Of so many steps the first is taken in, the others are not.
        start: The steps before it, and the first that is taken in after them, are not averaged but
            copied.

    Attributes:
        weights: The average, by the names of the model's ``state_dict()``.
        updates: Updates that were averaged so far.
    """

    def __init__(
        self, model: nn.Module, *, decay: float, warmup: int = 0, period: int = 1, start: int = 0
    ) -> None:
        self.decay = decay
        self.warmup = warmup
        self.period = period
        self.start = start
        self.updates = 0
        self.weights = {name: _begin(value) for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, iteration: int = 0) -> None:
        """Take in the model's weights after a step.

        Args:
            model: Of the same architecture.
            iteration: The step's, from 0; with ``period`` and ``start`` it decides what is done.
        """
        if iteration % self.period:
            return
        decay = self._decay_at(iteration)
        averages: list[Tensor] = []
        current: list[Tensor] = []
        for name, value in model.state_dict().items():
            average = self.weights[name]
            if average.is_floating_point():
                averages.append(average)
                current.append(value.to(average.dtype))
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, current, 1 - decay)

    def _decay_at(self, iteration: int) -> float:
        if self.start and iteration < self.start + self.period:
            return 0.0
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (self.warmup + self.updates))
        self.updates += 1
        return decay

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the context the model has the average's weights; then its own, whatever happens.

        Nothing is copied but the buffers: the parameters point at the average for as long.
        """
        own = model.state_dict(keep_vars=True)
        trained = {name: tensor.data for name, tensor in own.items()}
        try:
            for name, tensor in own.items():
                average = self.weights[name].to(tensor.dtype)
                # A copy, because a forward pass may write into a buffer.
                tensor.data = average if isinstance(tensor, nn.Parameter) else average.clone()
            yield
        finally:
            for name, tensor in own.items():
                tensor.data = trained[name]

    def load(self, weights: Mapping[str, Tensor], updates: int) -> None:
        """Go on with the ``weights`` and ``updates`` of an earlier average."""
        for name, value in self.weights.items():
            value.copy_(weights[name])
        self.updates = updates


def _begin(value: Tensor) -> Tensor:
    value = value.detach().clone()
    return value.float() if value.dtype in _SHORT else value
