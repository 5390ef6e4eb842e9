"""The state of a checkpoint as a run with the present config goes on from it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.schema import Config
from ..errors import CheckpointError
from ..solver import FreshSolver
from .resume_changes import ResumeChanges
from .trainer import Trainer

# What rates, weight decays and groups of parameters come from.
_SOLVER_KEYS = (
    "solver.optimizer*",
    "solver.schedule*",
    "solver.max_iter",
    "solver.weight_decay_*",
    "solver.parameter_groups*",
    "solver.layer_decay",
    "solver.freeze*",
)
_SCHEDULE_HOOK = "LRScheduler.1"


class ResumedState:
    """Reads the last good checkpoint, and applies what the config has changed since.

    Where nothing has changed, the state is the checkpoint's to the bit.

    Args:
        config: The present one.
        class_names: The model's.
        solver: Optimizer and schedule as the config has them at the first step.
        trainer: Of the run.
        read: Reads the last good checkpoint; its file and content, or None.
    """

    def __init__(
        self,
        config: Config,
        class_names: Sequence[str],
        solver: FreshSolver,
        trainer: Trainer,
        read: Callable[[], tuple[Path, Mapping[str, Any]] | None],
    ) -> None:
        self.config = config
        self.class_names = tuple(class_names)
        self.solver = solver
        self.trainer = trainer
        self.read = read

    def __call__(self) -> Mapping[str, Any] | None:
        """The last good checkpoint, for ``Trainer.load_state_dict``; None if there is none.

        Raises:
            CheckpointError: There are some, and none can be used.
        """
        found = self.read()
        if found is None:
            return None
        path, checkpoint = found
        changes = ResumeChanges.between(checkpoint, self.config, self.class_names, path)
        return self.applied(checkpoint, changes)

    def applied(self, checkpoint: Mapping[str, Any], changes: ResumeChanges) -> Mapping[str, Any]:
        """What a checkpoint holds, with the changes applied.

        Raises:
            CheckpointError: The optimizer cannot go on from it.
        """
        state, hooks = dict(checkpoint), dict(checkpoint.get("hooks", {}))
        own_hooks = dict(self.trainer.named_hooks())
        is_stepped = _SCHEDULE_HOOK in own_hooks
        if (
            changes.touches(_SOLVER_KEYS)
            or is_stepped != (_SCHEDULE_HOOK in hooks)
            or not self.solver.has_parameters_of(state["optimizer"])
        ):
            steps = int(state["iteration"]) + 1 if is_stepped else 0
            try:
                groups, hooks[_SCHEDULE_HOOK] = self.solver.after(
                    steps, float(state.get("lr_factor", 1.0))
                )
                state["optimizer"] = self.solver.with_groups(state["optimizer"], groups)
            except CheckpointError as error:
                raise changes.refusal(error, "solver.*") from error
        for name, hook in own_hooks.items():
            if changes.touches(hook.state_depends_on):
                hooks.pop(name, None)
        state["hooks"] = hooks
        if changes.touches(["data.train", "data.train.*"]):
            # Images that workers were lost at have other numbers in other data.
            state["loader"] = [{**each, "lost": []} for each in state.get("loader", [])]
        if changes.touches(["seed"]):
            state["random"] = []
        return state
