"""The state of a checkpoint's optimizer and schedule, for a config that has changed since.

Options, such as rates and weight decays, are those of the present config; what the optimizer has
measured (momentum, second moments, steps) stays with each parameter, by its name.
"""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from ..errors import CheckpointError, UserError
from ..registry import Block
from .registries import OPTIMIZER_REGISTRY

Group = dict[str, Any]
# What schedules derive the rates of a group from, and the rate itself.
_RATES = ("lr", "initial_lr", "min_lr", "max_lr")


class _StandIn(torch.optim.Optimizer):
    """The groups of an optimizer, without its parameters, for a schedule to move."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing; schedules count the calls."""


@dataclass(frozen=True)
class FreshSolver:
    """An optimizer and its schedule as a config has them before the first step.

    Attributes:
        optimizer: The optimizer; its state may have moved on since.
        block: Its block.
        groups: The options of its groups before the first step, without parameters.
        build_schedule: Builds the schedule over an optimizer.
    """

    optimizer: torch.optim.Optimizer
    block: Block
    groups: Sequence[Group]
    build_schedule: Callable[[torch.optim.Optimizer], LRScheduler]

    @classmethod
    def of(
        cls,
        optimizer: torch.optim.Optimizer,
        block: Block,
        build_schedule: Callable[[torch.optim.Optimizer], LRScheduler],
    ) -> "FreshSolver":
        """To be called before anything has stepped, and before a schedule is built."""
        groups = [_options(group) for group in optimizer.param_groups]
        return cls(optimizer, block, copy.deepcopy(groups), build_schedule)

    def has_parameters_of(self, state: Mapping[str, Any]) -> bool:
        """Whether a state's groups have the same parameters, as far as the state names them."""
        saved = state["param_groups"]
        return len(saved) == len(self.groups) and all(
            len(theirs["params"]) == len(ours["param_names"])
            and theirs.get("param_names", ours["param_names"]) == ours["param_names"]
            for theirs, ours in zip(saved, self.groups, strict=True)
        )

    def after(self, steps: int, lr_factor: float = 1.0) -> tuple[list[Group], dict[str, Any]]:
        """The options of the groups and the schedule's state of an uninterrupted run.

        Every step is made: the schedules of torch compute a rate from the one before.

        Args:
            steps: Iterations that are done.
            lr_factor: What the run has multiplied its rates by since.

        Raises:
            CheckpointError: The schedule has an end, and it lies before.
        """
        groups = [
            {**copy.deepcopy(group), "params": [nn.Parameter(torch.zeros(()))]}
            for group in self.groups
        ]
        for group in groups:
            group.pop("param_names", None)
        optimizer = _StandIn(groups, copy.copy(self.optimizer.defaults))
        schedule = self.build_schedule(optimizer)
        optimizer.step()
        try:
            with warnings.catch_warnings():
                # Of a schedule that ends early torch warns each time.
                warnings.simplefilter("ignore")
                for _ in range(steps):
                    schedule.step()
        except ValueError as error:
            raise CheckpointError(
                f"the schedule of the config has no rate after {steps} iterations, which the run "
                f"has done: {error}"
            ) from error
        scale_rates(optimizer, schedule, lr_factor)
        moved = [_options(group) for group in optimizer.param_groups]
        for group, own in zip(moved, self.groups, strict=True):
            group["param_names"] = own["param_names"]
        return moved, schedule.state_dict()

    def with_groups(self, state: Mapping[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
        """An optimizer's state with other groups; each parameter keeps its own.

        A parameter that was not trained begins without state, as in a new run.

        Args:
            state: ``state_dict()`` of the optimizer of a checkpoint.
            groups: Options by group, with ``param_names``.

        Raises:
            CheckpointError: The state is of an older version, which did not name parameters, and
                has other groups; or the optimizer cannot make a step with it.
        """
        numbers = self._numbers(state, groups)
        by_members = {tuple(g.get("param_names", ())): g for g in state["param_groups"]}
        moved: dict[str, Any] = {"state": {}, "param_groups": []}
        for group in groups:
            names = group["param_names"]
            first = sum(len(g["params"]) for g in moved["param_groups"])
            # What an optimizer counts in its groups stays; what a config says there does not.
            theirs = by_members.get(tuple(names), {})
            ours = {
                key: value
                for key, value in group.items()
                if key not in theirs or key in self.block or key not in self.optimizer.defaults
            }
            indices = list(range(first, first + len(names)))
            moved["param_groups"].append({**theirs, **ours, "params": indices})
            for index, name in zip(indices, names, strict=True):
                if numbers.get(name) in state["state"]:
                    moved["state"][index] = state["state"][numbers[name]]
        self._try_step(moved)
        return moved

    def _numbers(self, state: Mapping[str, Any], groups: Sequence[Group]) -> dict[str, int]:
        """The number by which a state knows each parameter."""
        saved = state["param_groups"]
        if not all("param_names" in group for group in saved):
            sizes = [[len(g["params"]) for g in saved], [len(g["param_names"]) for g in groups]]
            if sizes[0] != sizes[1]:
                raise CheckpointError(
                    "the checkpoint is of an older version and does not name the parameters of "
                    f"its optimizer, whose groups have {sizes[0]} of them; the config makes groups "
                    f"of {sizes[1]}; restore what has changed in solver and model.backbone"
                )
            saved = [
                {**theirs, "param_names": ours["param_names"]}
                for theirs, ours in zip(saved, groups, strict=True)
            ]
        return {
            name: number
            for group in saved
            for name, number in zip(group["param_names"], group["params"], strict=True)
        }

    def _try_step(self, state: Mapping[str, Any]) -> None:
        """See that the optimizer goes on with a state: its keys may ask for more of it."""
        for group, own in zip(state["param_groups"], self.optimizer.param_groups, strict=True):
            pairs = zip(group["params"], own["params"], strict=True)
            known = [(p.numel(), i, p) for i, p in pairs if i in state["state"]]
            if not known:
                continue
            _, index, parameter = min(known, key=lambda entry: entry[:2])
            copied = nn.Parameter(torch.zeros_like(parameter))
            copied.grad = torch.zeros_like(copied)
            options = {key: value for key, value in group.items() if key != "params"}
            try:
                probe = OPTIMIZER_REGISTRY.build(
                    self.block, params=[{**options, "params": [copied]}]
                )
                own_state = copy.deepcopy(state["state"][index])
                probe.load_state_dict(
                    {"state": {0: own_state}, "param_groups": [{**options, "params": [0]}]}
                )
                probe.step()
            except UserError:
                raise
            except Exception as error:
                raise CheckpointError(
                    f"optimizer '{self.block.name}' with the keys of the config cannot go on with "
                    f"the checkpoint's state ({type(error).__name__}: {error})"
                ) from error


def scale_rates(optimizer: torch.optim.Optimizer, schedule: Any, factor: float) -> None:
    """Multiply the learning rate of every group, and what a schedule derives it from.

    Args:
        optimizer: Its groups are changed.
        schedule: Of it, or None.
        factor: What rates are multiplied by.
    """
    for group in optimizer.param_groups:
        group.update({key: group[key] * factor for key in _RATES if key in group})
    for name in ("base_lrs", "max_lrs"):
        if hasattr(schedule, name):
            setattr(schedule, name, [rate * factor for rate in getattr(schedule, name)])


def _options(group: Mapping[str, Any]) -> Group:
    return {key: value for key, value in group.items() if key != "params"}
