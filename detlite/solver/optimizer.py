"""Optimizers from their blocks, over the parameters of a model."""

import logging
from collections.abc import Sequence

import torch
from torch import nn

from ..config.schema import ParameterGroup
from ..errors import ConfigError
from ..registry import Block
from ..utils.tables import fitted_table
from .grouping import parameter_groups as sorted_parameters
from .registries import OPTIMIZER_REGISTRY

logger = logging.getLogger(__name__)


def build_optimizer(
    block: Block,
    model: nn.Module,
    *,
    weight_decay_norm: float | None = None,
    weight_decay_bias: float | None = None,
    parameter_groups: Sequence[ParameterGroup] = (),
    layer_decay: float = 1.0,
) -> torch.optim.Optimizer:
    """Build the optimizer of a block over a model's trained parameters.

    Its groups have a ``name``, for logs, and ``lr_factor``, what their rate was multiplied by.
    Where parameters learn at different rates, or ``parameter_groups`` says something, a table of
    the groups is logged.

    Args:
        block: The optimizer's block.
        model: Parameters that need no gradient are left out.
        weight_decay_norm: Of scales and shifts of normalization layers; None: the optimizer's.
        weight_decay_bias: Of the other biases; None: the optimizer's.
        parameter_groups: Rates and weight decays by names of parameters.
        layer_decay: Factor of the rate from each layer of the backbone to the one below it.

    Raises:
        ConfigError: A rule matches no parameter, or the optimizer lacks what it would change.
        ValueError: The model has no parameter to train, or the optimizer refuses a value.
    """
    groups = sorted_parameters(
        model,
        weight_decay_norm=weight_decay_norm,
        weight_decay_bias=weight_decay_bias,
        rules=parameter_groups,
        layer_decay=layer_decay,
    )
    if not groups:
        raise ValueError("the model has no parameter that needs a gradient; is all of it frozen?")
    optimizer: torch.optim.Optimizer = OPTIMIZER_REGISTRY.build(block, params=groups)
    _check_changes(optimizer, block.name, parameter_groups, layer_decay)
    for group in optimizer.param_groups:
        factor = group.pop("weight_decay_factor")
        if group["lr_factor"] != 1:
            group["lr"] *= group["lr_factor"]
        if factor != 1:
            group["weight_decay"] *= factor
    if parameter_groups or layer_decay != 1:
        logger.info("parameter groups of %s:\n%s", block.name, group_table(optimizer))
    return optimizer


def group_table(optimizer: torch.optim.Optimizer) -> str:
    """The groups of an optimizer: name, tensors, numbers in them, learning rate, weight decay."""
    rows = [
        (
            group["name"],
            len(group["params"]),
            f"{sum(p.numel() for p in group['params']) / 1e6:.3f}M",
            f"{float(group.get('initial_lr', group['lr'])):.4g}",
            f"x {group['lr_factor']:.4g}",
            f"{float(group.get('weight_decay', 0)):.4g}",
        )
        for group in optimizer.param_groups
    ]
    headers = ("group", "tensors", "numbers", "lr", "factor", "decay")
    return fitted_table(rows, headers, disable_numparse=True)


def _check_changes(
    optimizer: torch.optim.Optimizer,
    name: str,
    rules: Sequence[ParameterGroup],
    layer_decay: float,
) -> None:
    """Refuse rules about what the optimizer does not have."""
    changed = {
        "lr": layer_decay != 1 or any(rule.lr_factor != 1 for rule in rules),
        "weight_decay": any(
            rule.weight_decay is not None or rule.weight_decay_factor != 1 for rule in rules
        ),
    }
    for key, is_changed in changed.items():
        if is_changed and key not in optimizer.defaults:
            raise ConfigError(
                f"solver.parameter_groups and layer_decay change the {key} of parameters, and "
                f"optimizer '{name}' has none; remove them or take another, e.g. AdamW"
            )
