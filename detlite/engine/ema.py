"""A moving average of the weights (Tarvainen and Valpola 2017, https://arxiv.org/abs/1703.01780)."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class ModelEMA:
    """The moving average of a model's parameters and buffers.

    Args:
        model: Its weights are where the average begins.
        decay: Share of the old average that a step keeps.
        warmup: The share in step t is ``min(decay, (1 + t) / (warmup + t))``, so that the random
            first weights fade quickly; 0 for none.
    """

    def __init__(self, model: nn.Module, *, decay: float, warmup: int = 0) -> None:
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's weights after a step."""
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (self.warmup + self.updates))
        self.updates += 1
        current = model.state_dict()
        moving = [name for name, value in self.weights.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self.weights[name] for name in moving], [current[name] for name in moving], 1 - decay
        )
        for name in self.weights.keys() - set(moving):
            self.weights[name].copy_(current[name])

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the context the model has the average's weights."""
        trained = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.weights)
        try:
            yield
        finally:
            model.load_state_dict(trained)

    def load(self, weights: Mapping[str, Tensor], updates: int) -> None:
        """Go on with the ``weights`` and ``updates`` of an earlier average."""
        for name, value in self.weights.items():
            value.copy_(weights[name])
        self.updates = updates
