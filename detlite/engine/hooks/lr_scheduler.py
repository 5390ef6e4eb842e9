"""The learning rate over the iterations."""

import warnings
from typing import Any

import torch

from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer


@HOOK_REGISTRY.register
class LRScheduler(HookBase):
    """Steps the schedule after each iteration; logs the rate as ``lr``.

    Args:
        schedule: A schedule of torch over the trainer's optimizer.
    """

    def __init__(self, *, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
        self.schedule = schedule

    def after_step(self, trainer: Trainer) -> None:
        """Log the rate of this step, set that of the next."""
        # Of several groups that with the plain rate, the largest if there are several.
        group = max(
            trainer.optimizer.param_groups,
            key=lambda g: (g.get("lr_factor", 1) == 1, sum(p.numel() for p in g["params"])),
        )
        trainer.buffer.put({"lr": group["lr"]})
        if trainer.skip_reason is None and not trainer.scaler.is_enabled():
            self.schedule.step()
            return
        with warnings.catch_warnings():
            # Where the very first step is left out, torch takes it for a wrong order of calls.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            self.schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """The schedule's state."""
        return self.schedule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the schedule."""
        self.schedule.load_state_dict(state)
