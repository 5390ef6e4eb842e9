"""Optimizers, and which parameters get which weight decay."""

from typing import Any

import torch
from torch import nn

from ..registry import Block
from .registries import OPTIMIZER_REGISTRY

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay_norm: float | None = None,
    weight_decay_bias: float | None = None,
) -> list[dict[str, Any]]:
    """Sort the trained parameters of a model by weight decay.

    Args:
        model: Parameters that need no gradient are left out.
        weight_decay_norm: Of scales and shifts of normalization layers; None: the optimizer's.
        weight_decay_bias: Of the other biases; None: the optimizer's.

    Returns:
        Groups for an optimizer, without the empty ones; each parameter stands in one of them once.
    """
    decays: dict[str, float | None] = {
        "weights": None,
        "norms": weight_decay_norm,
        "biases": weight_decay_bias,
    }
    groups: dict[str, dict[int, nn.Parameter]] = {kind: {} for kind in decays}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            kind = "biases" if name == "bias" else "weights"
            kind = "norms" if isinstance(module, _NORMS) else kind
            # A parameter that two modules share belongs to the first.
            if parameter.requires_grad and not any(id(parameter) in g for g in groups.values()):
                groups[kind][id(parameter)] = parameter
    return [
        {"params": list(parameters.values())}
        | ({} if decays[kind] is None else {"weight_decay": decays[kind]})
        for kind, parameters in groups.items()
        if parameters
    ]


def build_optimizer(
    block: Block,
    model: nn.Module,
    *,
    weight_decay_norm: float | None = None,
    weight_decay_bias: float | None = None,
) -> torch.optim.Optimizer:
    """Build the optimizer of a block over a model's trained parameters.

    Raises:
        ValueError: The model has no parameter to train, or the optimizer refuses a value.
    """
    groups = parameter_groups(
        model, weight_decay_norm=weight_decay_norm, weight_decay_bias=weight_decay_bias
    )
    if not groups:
        raise ValueError("the model has no parameter that needs a gradient; is all of it frozen?")
    optimizer: torch.optim.Optimizer = OPTIMIZER_REGISTRY.build(block, params=groups)
    return optimizer
