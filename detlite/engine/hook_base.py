"""The contract of hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # For annotations only: the trainer imports this file.
    from .trainer import Trainer


class HookBase:
    """One concern of a run, called at four points of it.

    ::

        hook.before_train(trainer)
        for trainer.iter in range(start_iter, max_iter):
            hook.before_step(trainer)
            trainer.run_step()
            hook.after_step(trainer)
        hook.after_train(trainer)   # not if the run ended in an error
        hook.close(trainer)         # always

    A hook owns no global; all that it needs is the trainer or comes from its constructor.
    """

    def before_train(self, trainer: Trainer) -> None:
        """Before the first step."""

    def before_step(self, trainer: Trainer) -> None:
        """Before each step."""

    def after_step(self, trainer: Trainer) -> None:
        """After each step; ``trainer.metrics`` holds its losses."""

    def after_train(self, trainer: Trainer) -> None:
        """After the last step, if the run came to its end."""

    def close(self, trainer: Trainer) -> None:
        """At the end whatever happened; release files."""

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart: numbers, strings, tensors and containers of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
