"""All that a run is at the end of an iteration, as a checkpoint holds it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from ..solver import scale_rates
from ..utils.distributed import gather_objects, is_main_process, rank, world_size
from ..utils.random_state import RandomState

if TYPE_CHECKING:
    # For annotations only: the trainer imports this file.
    from .trainer import Trainer

logger = logging.getLogger(__name__)


def state_of(trainer: Trainer) -> dict[str, Any]:
    """Everything that a resumed run needs; called on every rank, the same on every rank.

    An iteration is whole or not begun, so there are no half-accumulated gradients in it.
    """
    loader_state = getattr(trainer.loader, "state_dict", dict)
    state: dict[str, Any] = {
        "iteration": trainer.iter,
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "hooks": {name: hook.state_dict() for name, hook in trainer.named_hooks()},
        "buffer": trainer.buffer.state_dict(),
        "results": trainer.results,
        "results_iter": trainer.results_iter,
        "lr_factor": trainer.lr_factor,
        "unfinished_hook": trainer.unfinished_hook,
        "loader": gather_objects(loader_state()),
        "random": gather_objects(RandomState.capture().to_dict()),
    }
    if trainer.ema is not None:
        state |= {"ema": trainer.ema.weights, "ema_updates": trainer.ema.updates}
    return state


def load_state(trainer: Trainer, state: Mapping[str, Any]) -> RandomState | None:
    """Take back what ``state_of`` gave.

    Returns:
        The random state of this rank, to be restored when nothing else draws numbers any more;
        None where the file has none for it.
    """
    try:
        trainer.model.load_state_dict(state["model"])
        trainer.optimizer.load_state_dict(state["optimizer"])
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint is of a run with another model, optimizer or other parameter groups: "
            f"{error}. Resume with the config.yaml beside it, or begin anew in another output_dir"
        ) from error
    if state["scaler"]:  # empty of a run in another precision than fp16
        trainer.scaler.load_state_dict(state["scaler"])
    if trainer.ema is not None:
        # A run that had no average yet begins it with the weights that it has reached.
        weights = state.get("ema", state["model"])
        trainer.ema.load(weights, int(state.get("ema_updates", 0)))
    for name, hook in trainer.named_hooks():
        if name in state["hooks"]:
            hook.load_state_dict(state["hooks"][name])
    trainer.buffer.load_state_dict(state.get("buffer", {}))
    trainer.results = dict(state.get("results", {}))
    trainer.results_iter = int(state.get("results_iter", -1))
    trainer.lr_factor = float(state.get("lr_factor", 1.0))
    unfinished = state.get("unfinished_hook")
    # A hook that the config has no more has nothing to finish, nor have those behind it.
    trainer.unfinished_hook = unfinished if unfinished in dict(trainer.named_hooks()) else None
    if hasattr(trainer.loader, "load_state_dict"):
        trainer.loader.load_state_dict(state.get("loader", []))
    trainer.start_iter = trainer.iter = int(state["iteration"]) + 1
    return _random_state(state.get("random", []))


def go_back_to_last(trainer: Trainer, lr_factor: float) -> None:
    """Put a run back to its last good checkpoint, with a lower learning rate.

    Raises:
        FloatingPointError: There is none.
    """
    state = trainer.last_checkpoint() if trainer.last_checkpoint else None
    if state is None:
        raise FloatingPointError(
            f"iteration {trainer.iter} would go back to the last checkpoint, and there is none "
            "yet; a shorter train.checkpoint_period writes one earlier"
        )
    wanted, failed = trainer.lr_factor * lr_factor, trainer.iter
    trainer.load_state_dict(state)
    # The checkpoint may have been written before or after earlier reductions.
    scale_lr(trainer, wanted / trainer.lr_factor)
    trainer.lr_factor = wanted
    logger.warning(
        "iteration %d: gone back to iteration %d, with %g times the learning rate",
        failed,
        trainer.start_iter,
        lr_factor,
    )
    trainer.loader.restart(trainer.start_iter)  # type: ignore[attr-defined]


def scale_lr(trainer: Trainer, factor: float) -> None:
    """Multiply the learning rate of every group, and what schedules derive it from."""
    schedules = (getattr(hook, "schedule", None) for hook in trainer.hooks)
    schedule = next((each for each in schedules if each is not None), None)
    scale_rates(trainer.optimizer, schedule, factor)


def _random_state(by_rank: list[dict[str, Any]]) -> RandomState | None:
    if len(by_rank) == world_size():
        return RandomState.from_dict(by_rank[rank()])
    if by_rank and is_main_process():
        logger.warning(
            "the checkpoint is of %d processes, this run has %d: the same samples follow in the "
            "same order, random numbers within the model (dropout) are drawn anew",
            len(by_rank),
            world_size(),
        )
    return None
