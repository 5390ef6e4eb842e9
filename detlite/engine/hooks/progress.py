"""A progress bar."""

import sys

from tqdm import tqdm

from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer


@HOOK_REGISTRY.register
class ProgressBar(HookBase):
    """A progress bar where the terminal is one; elsewhere nothing."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None  # type: ignore[type-arg]

    def before_train(self, trainer: Trainer) -> None:
        """Show it."""
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=trainer.max_iter, initial=trainer.start_iter, desc="training", leave=False
            )

    def after_step(self, trainer: Trainer) -> None:
        """Move it."""
        if self._bar is not None:
            self._bar.update()

    def close(self, trainer: Trainer) -> None:
        """Take it away."""
        if self._bar is not None:
            self._bar.close()
