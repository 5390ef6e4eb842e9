"""What happens when a loss or a gradient is NaN or infinite."""

import logging
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor

from ...checkpoint import Checkpointer
from ...config.tree import parse_yaml
from ...errors import CheckpointError
from ...ranges import NonNegativeInt, PositiveInt
from ...utils.distributed import gather_objects, rank, world_size
from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..replay import record_step, write_bundle
from ..replay.writing import bundles_of, file_names
from ..trainer import Trainer

GRADIENT = "gradient norm"
_MAX_TOLD = 16
_ADVICE = (
    "A lower solver.optimizer.lr, a longer warm-up or solver.clip_gradients={norm: 10} often helps."
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Involved:
    """A process in a step that went wrong: its images, and those of parts whose losses are bad."""

    rank: int
    images: list[str]
    bad_images: list[str]
    bundle: str
    problem: str


@HOOK_REGISTRY.register
class NonFiniteLossCheck(HookBase):
    """Finds a NaN or infinite loss or gradient before the weights have moved.

    The step is recorded as a bundle in ``output_dir/non_finite``: images, targets, losses, norms,
    weights, random states. ``tools/replay.py`` repeats it and says where the number came from. In
    fp16 a gradient that overflows alone is the gradient scaler's to mend, by a lower scale.

    Args:
        checkpointer: Of the run; bundles lie beside its checkpoints.
        period: Check every so many steps; on a GPU each check waits for the device once. The steps
            between are not checked.
        policy: "stop" the run, "skip" the step, or go back to the last checkpoint ("rollback").
        max_bundles: Bundles of a run and process; what comes after them is only counted.
        max_skips: Steps in a row that may be skipped; with the next one the run stops.
        lr_factor: What going back multiplies the learning rate by.
        max_rollbacks: How often the run may go back; the next time it stops.
    """

    def __init__(
        self,
        *,
        checkpointer: Checkpointer,
        period: PositiveInt = 1,
        policy: Literal["stop", "skip", "rollback"] = "stop",
        max_bundles: NonNegativeInt = 5,
        max_skips: NonNegativeInt = 20,
        lr_factor: Annotated[float, Meta(gt=0, le=1)] = 0.5,
        max_rollbacks: NonNegativeInt = 3,
    ) -> None:
        self.checkpointer = checkpointer
        self.folder = checkpointer.folder / "non_finite"
        self.period = period
        self.policy = policy
        self.max_bundles = max_bundles
        self.max_skips = max_skips
        self.lr_factor = lr_factor
        self.max_rollbacks = max_rollbacks
        self.found = 0
        self.skipped = 0
        self.skipped_in_row = 0
        self.rollbacks = 0

    def after_backward(self, trainer: Trainer) -> None:
        """Check the step; the weights are as they were before it.

        Raises:
            FloatingPointError: By the policy, or because skipping or going back does not help.
        """
        if (trainer.iter + 1) % self.period:
            return
        names = _non_finite(trainer)
        if not names:
            self.skipped_in_row = 0
            self._count(trainer)
            return
        self.found += 1
        message = self._record(trainer, names)
        if self.policy == "skip" and self.skipped_in_row < self.max_skips:
            self.skipped += 1
            self.skipped_in_row += 1
            logger.warning("step skipped: %s", message)
            trainer.skip_update(f"{', '.join(names)} not finite")
            self._count(trainer)
            return
        if self.policy == "rollback" and self.rollbacks < self.max_rollbacks:
            self.rollbacks += 1
            logger.warning(
                "going back to the last checkpoint, for the %d. time of %d at most: %s",
                self.rollbacks,
                self.max_rollbacks,
                message,
            )
            trainer.go_back(self.lr_factor)
            return
        if self.policy == "skip":
            message = f"{self.skipped_in_row} steps in a row have been skipped. {message}"
        elif self.policy == "rollback":
            message = f"the run has gone back {self.rollbacks} times. {message}"
        _restore_buffers(trainer)
        raise FloatingPointError(message)

    @property
    def faults(self) -> dict[str, int]:
        """What the log and the summary of the run count."""
        return {"skipped_steps": self.skipped}

    def state_dict(self) -> dict[str, Any]:
        """How often it came to what."""
        return {
            "found": self.found,
            "skipped": self.skipped,
            "skipped_in_row": self.skipped_in_row,
            "rollbacks": self.rollbacks,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting; what this process has counted since the checkpoint stays counted.

        Otherwise a run that goes back would go back for ever.
        """
        self.found = max(self.found, state.get("found", 0))
        self.skipped = max(self.skipped, state.get("skipped", 0))
        self.rollbacks = max(self.rollbacks, state.get("rollbacks", 0))
        self.skipped_in_row = state.get("skipped_in_row", 0)

    def _count(self, trainer: Trainer) -> None:
        if self.skipped:
            trainer.buffer.set("skipped_steps", self.skipped)

    def _record(self, trainer: Trainer, names: list[str]) -> str:
        """Write the bundle, of which every process has its own; returns what is to be said."""
        bad_images = []
        for part, losses in zip(trainer.parts, trainer.part_losses, strict=True):
            if not all(_is_finite(value) for name, value in losses.items() if _is_loss(name)):
                bad_images += file_names(part)
        bundle, problem = self._write(trainer, names)
        own = _Involved(rank(), file_names(trainer.batch), bad_images, bundle, problem)
        by_rank = gather_objects(own)
        # The process whose own losses are not finite has the bundle to look at. All of them say
        # the same, so that it is printed once.
        first = next((each for each in by_rank if each.bad_images), by_rank[0])
        return " ".join([_values(trainer, names), _images(by_rank), self._place(first), _ADVICE])

    def _place(self, involved: _Involved) -> str:
        if not involved.bundle:
            return f"No bundle was written: {involved.problem}."
        config = parse_yaml(str(self.checkpointer.identity["config"]), "the config")
        trust = " --trust-imports" if config.values.get("imports") else ""
        return (
            f"The step is recorded in {involved.bundle}; `python tools/replay.py "
            f"{involved.bundle}{trust}` repeats it and says where the first non-finite number "
            "arose."
        )

    def _write(self, trainer: Trainer, names: list[str]) -> tuple[str, str]:
        """The bundle's folder, or "" and why there is none."""
        if len(bundles_of(self.folder, rank())) >= self.max_bundles:
            return "", f"there are {self.max_bundles} bundles in {self.folder} already"
        try:
            bundle = record_step(trainer, self.checkpointer.identity, names)
            return str(write_bundle(bundle, self.folder)), ""
        except Exception as error:
            # Whatever it is: the policy must not depend on it, or the processes would part.
            kind = "" if isinstance(error, CheckpointError) else f"{type(error).__name__}: "
            return "", f"the step could not be recorded: {kind}{error}"


def _non_finite(trainer: Trainer) -> list[str]:
    """Names of what is not finite; the same on every rank, as losses and gradients are summed."""
    losses = {name: value for name, value in trainer.metrics.items() if _is_loss(name)}
    norm = trainer.gradient_norm()
    # One number comes from the device, and only if it is bad the others.
    if _is_finite(torch.stack([value.double() for value in (*losses.values(), norm)])):
        return []
    names = [name for name, value in losses.items() if not _is_finite(value)]
    if not names and trainer.scaler.is_enabled() and trainer.scaler.get_scale() > 1:
        return []
    return names + ([] if _is_finite(norm) else [GRADIENT])


@torch.no_grad()
def _restore_buffers(trainer: Trainer) -> None:
    """Leave the whole model as it was before the step, for whoever goes on with it in Python."""
    before = trainer.buffers_before()
    for name, buffer in trainer.model.named_buffers():
        buffer.copy_(before[name])


def _is_loss(name: str) -> bool:
    return name == "total_loss" or name.startswith("loss")


def _is_finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())


def _values(trainer: Trainer, names: list[str]) -> str:
    values = {name: float(value) for name, value in trainer.metrics.items()}
    values[GRADIENT] = float(trainer.gradient_norm())
    told = ", ".join(f"{name} = {value:.4g}" for name, value in values.items())
    rates = sorted({group["lr"] for group in trainer.optimizer.param_groups})
    rate = " to ".join(f"{rate:.4g}" for rate in dict.fromkeys((rates[0], rates[-1])))
    return f"{', '.join(names)} at iteration {trainer.iter}: {told}, at a learning rate of {rate}."


def _images(by_rank: list[_Involved]) -> str:
    involved = [each for each in by_rank if each.bad_images]
    files = [name for each in involved for name in each.bad_images]
    files = files or [name for each in by_rank for name in each.images]
    title = "Images of this step"
    if involved and world_size() > 1:
        ranks = ", ".join(str(each.rank) for each in involved)
        title = f"Images of this step whose losses are not finite, of rank {ranks}"
    more = f" and {len(files) - _MAX_TOLD} more" if len(files) > _MAX_TOLD else ""
    return f"{title}: {', '.join(files[:_MAX_TOLD])}{more}."
