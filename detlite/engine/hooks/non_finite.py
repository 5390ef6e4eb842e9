"""Stop at a NaN or infinite loss."""

import math
from collections import deque

from torch import Tensor

from ...ranges import PositiveInt
from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer


@HOOK_REGISTRY.register
class NonFiniteLossCheck(HookBase):
    """Stop at a NaN or infinite loss; name it, its iteration and its images.

    Args:
        period: Iterations between checks; each check waits for the device. On the CPU, where it
            need not wait, every iteration is checked.
    """

    def __init__(self, *, period: PositiveInt = 20) -> None:
        self.period = period
        self._recent: deque[tuple[int, dict[str, Tensor], list[str]]] = deque()

    def after_step(self, trainer: Trainer) -> None:
        """Look at all steps since the last check."""
        files = [str(sample.get("file_name", "?")) for sample in trainer.batch]
        self._recent.append((trainer.iter, trainer.metrics, files))
        done = trainer.iter + 1
        if trainer.device.type != "cpu" and done % self.period and done != trainer.max_iter:
            return
        for iteration, metrics, names in self._recent:
            values = {name: float(value) for name, value in metrics.items()}
            broken = [name for name, value in values.items() if not math.isfinite(value)]
            if broken:
                raise FloatingPointError(
                    f"{', '.join(broken)} at iteration {iteration}: "
                    f"{', '.join(f'{name} = {value:.4g}' for name, value in values.items())}. "
                    f"Images of this step: {', '.join(names)}. A lower solver.optimizer.lr, a "
                    "longer warm-up or solver.clip_gradients={norm: 10} often helps."
                )
        self._recent.clear()
