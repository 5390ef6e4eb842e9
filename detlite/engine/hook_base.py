"""The contract of hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    # For annotations only: the trainer imports this file.
    from .trainer import Trainer


class HookBase:
    """One concern of a run, called at the points of it.

    ::

        hook.before_train(trainer)
        for trainer.iter in range(start_iter, max_iter):
            hook.before_step(trainer)
            ...                         # forward and backward
            hook.after_backward(trainer)
            ...                         # the optimizer's step
            hook.after_step(trainer)
        hook.after_interruption(trainer)  # if it was stopped while it waited or evaluated
        hook.after_train(trainer)       # if the run came to its end, also an early one
        hook.close(trainer)             # always

    A hook may end the run after the step (``trainer.request_stop``), ask for a checkpoint
    (``request_checkpoint``) and, in ``after_backward``, leave a step out (``skip_update``) or go
    back to the last checkpoint (``go_back``); ``after_restore`` follows.

    A hook owns no global; all that it needs is the trainer or comes from its constructor.
    """

    state_depends_on: ClassVar[Sequence[str]] = ()
    """Patterns of keys of the config: where one has changed, a resumed run drops this state."""

    def before_train(self, trainer: Trainer) -> None:
        """Before the first step."""

    def before_step(self, trainer: Trainer) -> None:
        """Before each step."""

    def after_backward(self, trainer: Trainer) -> None:
        """Before the optimizer's step: the gradients are there, not clipped yet."""

    def after_step(self, trainer: Trainer) -> None:
        """After each step; ``trainer.metrics`` holds its losses."""

    def after_interruption(self, trainer: Trainer) -> None:
        """After a stop between two steps, or in a loop over test data.

        ``trainer.iter`` is the last step that was done. Where ``trainer.unfinished_hook`` is set,
        the resumed run first calls ``after_step`` of that hook and of those behind it.
        """

    def after_restore(self, trainer: Trainer) -> None:
        """After the run has gone back to an earlier iteration, now ``trainer.start_iter``."""

    def after_train(self, trainer: Trainer) -> None:
        """After the last step, if the run came to its end."""

    def close(self, trainer: Trainer) -> None:
        """At the end whatever happened; release files."""

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart: numbers, strings, tensors and containers of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
