"""Layer-wise decay: the learning rate falls from the head towards the image.

A layer learns at ``lr * decay ** (layers above it)``, of which the head, the neck and whatever else
is no backbone count as one, with the full rate; so the last of L layers has ``decay`` and the first
``decay ** L``. That is the rule of BEiT (https://arxiv.org/abs/2106.08254), ViTDet
(``get_vit_lr_decay_rate`` of detectron2), mmdetection's optimizer constructor and timm.
"""

from torch import nn

from ..errors import ConfigError
from ..modeling import Backbone


def layers_above(model: nn.Module) -> dict[str, int]:
    """How many layers stand above each parameter of the backbones, by the parameter's name.

    Parameters outside of backbones are not in it. Frozen layers count like the others, so that
    freezing changes no rate.

    Raises:
        ConfigError: No part of the model is a ``Backbone``.
        ValueError: A backbone's ``layers()`` names something that is no submodule.
    """
    backbones = [(n, module) for n, module in model.named_modules() if isinstance(module, Backbone)]
    if not backbones:
        raise ConfigError(
            f"solver.layer_decay needs a Backbone to count the layers of, and {_name(model)} has "
            "none; remove the key, or derive the part that makes the features from "
            "detlite.Backbone"
        )
    above = {}
    for name, backbone in backbones:
        prefix = f"{name}." if name else ""
        for parameter, number in _layers_above(backbone).items():
            above[prefix + parameter] = number
    return above


def _layers_above(backbone: Backbone) -> dict[str, int]:
    names = list(backbone.layers())
    known = dict(backbone.named_modules())
    unknown = [name for name in names if name not in known or not name]
    if unknown or len(set(names)) < len(names):
        problem = f"{unknown[0]!r}, which is no submodule" if unknown else "one submodule twice"
        raise ValueError(f"{_name(backbone)}.layers() names {problem}: {names}")
    layers = [name for name in names if any(True for _ in known[name].parameters())]
    order = {name: i for i, name in enumerate(layers)}
    # Both names of a parameter that two layers share.
    return {
        parameter: max(len(layers), 1) - _layer_of(parameter, order)
        for parameter, _ in backbone.named_parameters(remove_duplicate=False)
    }


def _layer_of(parameter: str, order: dict[str, int]) -> int:
    parts = parameter.split(".")
    # From long to short: a layer may stand within another.
    for length in range(len(parts) - 1, 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in order:
            return order[prefix]
    # Such as position embeddings, which BEiT counts to the first layer as well.
    return 0


def _name(module: nn.Module) -> str:
    return type(module).__name__
