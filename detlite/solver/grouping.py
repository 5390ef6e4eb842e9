"""Which parameters learn at which rate with which weight decay."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..config.schema import ParameterGroup
from ..errors import ConfigError
from .layer_decay import layers_above
from .parameter_names import ParameterNames, covering_prefixes, in_few_words

logger = logging.getLogger(__name__)

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


@dataclass(frozen=True)
class Treatment:
    """How a parameter is trained, next to what the optimizer says.

    Attributes:
        lr_factor: What the learning rate is multiplied by.
        weight_decay: Instead of the optimizer's; None: the optimizer's.
        weight_decay_factor: What either is multiplied by.
    """

    lr_factor: float = 1.0
    weight_decay: float | None = None
    weight_decay_factor: float = 1.0


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay_norm: float | None = None,
    weight_decay_bias: float | None = None,
    rules: Sequence[ParameterGroup] = (),
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Sort the trained parameters of a model by how they are trained.

    Where several rules match a parameter, their factors multiply, and of explicit weight decays
    the last one counts, also before those of norms and biases.

    Args:
        model: Parameters that need no gradient are left out.
        weight_decay_norm: Of scales and shifts of normalization layers; None: the optimizer's.
        weight_decay_bias: Of the other biases; None: the optimizer's.
        rules: Rates and weight decays by names of parameters, ``solver.parameter_groups``.
        layer_decay: Factor of the rate from each layer of the backbone to the one below it.

    Returns:
        Groups for an optimizer, none of them empty, in the order of the parameters; each parameter
        stands in one of them once. A group has ``params``, ``param_names``, ``name``,
        ``lr_factor``, ``weight_decay_factor`` and, where it is not the optimizer's,
        ``weight_decay``.

    Raises:
        ConfigError: A rule matches no parameter, or there is no backbone for ``layer_decay``.
    """
    names = ParameterNames(model)
    kinds = _kinds(model)
    decays = {"weights": None, "norms": weight_decay_norm, "biases": weight_decay_bias}
    by_rule = [_matched(names, rule, i) for i, rule in enumerate(rules)]
    above = layers_above(model) if layer_decay != 1 else {}
    groups: dict[Treatment, list[str]] = {}
    for name, _ in model.named_parameters():
        if name in kinds:
            matching = [
                rule for rule, matched in zip(rules, by_rule, strict=True) if name in matched
            ]
            scale = layer_decay ** above.get(name, 0)
            groups.setdefault(_treatment(matching, decays[kinds[name]], scale), []).append(name)
    return [
        {
            "params": [names.parameters[name] for name in members],
            "param_names": members,
            "name": _title(members, kinds),
            "lr_factor": treatment.lr_factor,
            "weight_decay_factor": treatment.weight_decay_factor,
        }
        | ({} if treatment.weight_decay is None else {"weight_decay": treatment.weight_decay})
        for treatment, members in groups.items()
    ]


def _kinds(model: nn.Module) -> dict[str, str]:
    """What each trained parameter is, under the first of its names."""
    kinds = {}
    seen = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            # A parameter that two modules share belongs to the first.
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                kind = "biases" if name == "bias" else "weights"
                kind = "norms" if isinstance(module, _NORMS) else kind
                kinds[f"{prefix}.{name}" if prefix else name] = kind
    return kinds


def _matched(names: ParameterNames, rule: ParameterGroup, i: int) -> set[str]:
    """The names that a rule matches; of a shared parameter all its names."""
    key = f"solver.parameter_groups.{i}.match"
    patterns = [rule.match] if isinstance(rule.match, str) else rule.match
    if not patterns:
        raise ConfigError(f"{key} is an empty list; give it a pattern, such as 'backbone.*'")
    matched = {name for pattern in patterns for name in names.matching(pattern, key)}
    shared = {id(names.parameters[name]) for name in matched}
    if not any(names.parameters[name].requires_grad for name in matched):
        logger.warning("%s: %s matches frozen parameters only, without effect", key, patterns)
    return {name for name, parameter in names.parameters.items() if id(parameter) in shared}


def _treatment(
    rules: Sequence[ParameterGroup], weight_decay: float | None, lr_factor: float
) -> Treatment:
    weight_decay_factor = 1.0
    for rule in rules:
        lr_factor *= rule.lr_factor
        weight_decay_factor *= rule.weight_decay_factor
        weight_decay = weight_decay if rule.weight_decay is None else rule.weight_decay
    return Treatment(lr_factor, weight_decay, weight_decay_factor)


def _title(members: list[str], kinds: dict[str, str]) -> str:
    """A group in few words: "norms", "backbone.res2 biases", "all"."""
    own_kinds = {kinds[name] for name in members}
    inside = set(members)
    others = {name for name, kind in kinds.items() if kind in own_kinds and name not in inside}
    prefixes = covering_prefixes(members, others)
    if prefixes != [""]:
        parts = tuple(f"{prefix}." for prefix in prefixes)
        near = {kind for name, kind in kinds.items() if f"{name}.".startswith(parts)}
    else:
        near = set(kinds.values())
    words = [] if prefixes == [""] else [in_few_words(prefixes)]
    if own_kinds != near:
        words.append(
            " and ".join(kind for kind in ("weights", "norms", "biases") if kind in own_kinds)
        )
    return " ".join(words) or "all"
