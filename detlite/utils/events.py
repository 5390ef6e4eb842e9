"""Numbers of a run: collected without waiting for the device, handed out when they are logged."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class MetricBuffer:
    """Scalars by name since they were last taken.

    Tensors stay on their device until ``take``, so that a training step never waits for them.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor | float]] = {}

    def put(self, values: Mapping[str, Any]) -> None:
        """Add one value of each name."""
        for name, value in values.items():
            value = value.detach() if isinstance(value, Tensor) else float(value)
            self._values.setdefault(name, []).append(value)

    def set(self, name: str, value: float) -> None:
        """Let a name have this value alone, such as a count since the run began."""
        self._values[name] = [float(value)]

    def take(self) -> dict[str, float]:
        """The mean of each name since the last call, then forget them."""
        means = self.means()
        self._values.clear()
        return means

    def means(self) -> dict[str, float]:
        """The mean of each name since the last call of ``take``."""
        means = {}
        for name, values in self._values.items():
            tensors = [value for value in values if isinstance(value, Tensor)]
            numbers = [value for value in values if not isinstance(value, Tensor)]
            if tensors:
                # float64: the mean is the same when values have been through a checkpoint.
                numbers += torch.stack([tensor.double() for tensor in tensors]).tolist()
            means[name] = sum(numbers) / len(numbers)
        return means

    def state_dict(self) -> dict[str, list[float]]:
        """The values since the last call of ``take``, as numbers."""
        return {name: [float(value) for value in values] for name, values in self._values.items()}

    def load_state_dict(self, state: Mapping[str, list[float]]) -> None:
        """Go on with the values of ``state_dict``."""
        self._values = {name: list(values) for name, values in state.items()}
