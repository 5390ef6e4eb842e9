"""Parameters that are not trained, by patterns of their names."""

import logging
from collections.abc import Sequence

from torch import nn

from ..modeling import Backbone
from .parameter_names import ParameterNames, covering_prefixes

logger = logging.getLogger(__name__)

_LISTED_IN_FULL = 8


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Take parameters out of the training, and log which.

    Args:
        model: Its parameters then need no gradient.
        patterns: Such as ``backbone.stem.*``; ``*`` stands for anything, dots included.

    Returns:
        The names of all parameters that a pattern matches, in the model's order.

    Raises:
        ConfigError: A pattern matches no parameter.
    """
    names = ParameterNames(model)
    matched: set[str] = set()
    for i, pattern in enumerate(patterns):
        matched.update(names.matching(pattern, f"solver.freeze.{i}"))
    frozen = [name for name in names.parameters if name in matched]
    for name in frozen:
        names.parameters[name].requires_grad_(False)
    if frozen:
        _log(names, frozen)
    return frozen


def frozen_norms(model: nn.Module) -> list[nn.Module]:
    """The norms with running statistics whose parameters are all frozen.

    Whoever trains the model keeps them in evaluation mode, so that their statistics stay as well.
    A norm without parameters is not among them, nor is any of a backbone with ``batch_statistics:
    all``, which asks for the statistics of the batch there.
    """
    exempt = {
        id(module)
        for backbone in model.modules()
        if isinstance(backbone, Backbone) and backbone.batch_statistics == "all"
        for module in backbone.modules()
    }
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
        and module.running_mean is not None
        and id(module) not in exempt
        and _is_frozen(module)
    ]


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def _log(names: ParameterNames, frozen: list[str]) -> None:
    sizes = {id(names.parameters[name]): names.parameters[name].numel() for name in frozen}
    if len(frozen) <= _LISTED_IN_FULL:
        listed = frozen
    else:
        prefixes = covering_prefixes(frozen, set(names.parameters) - set(frozen))
        listed = [
            f"{prefix or 'the whole model'} ({sum(_is_within(name, prefix) for name in frozen)})"
            for prefix in prefixes
        ]
    logger.info(
        "solver.freeze: %d parameters with %.3fM numbers are not trained: %s",
        len(sizes),
        sum(sizes.values()) / 1e6,
        ", ".join(listed),
    )


def _is_within(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}.")
