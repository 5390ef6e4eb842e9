"""Which components a file registers, and what a config says of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..config import Config
from ..data import build_datasets
from ..errors import UserError
from ..modeling import ANCHOR_GENERATOR_REGISTRY, BACKBONE_REGISTRY, NECK_REGISTRY
from ..registry import Block, Registry, filled_registries
from .subject import Surroundings


def registered_by(before: Mapping[str, set[str]]) -> list[tuple[Registry, str]]:
    """The components that are there now and were not before."""
    return [
        (registry, name)
        for kind, registry in filled_registries().items()
        for name in registry
        if name not in before.get(kind, set())
    ]


def snapshot() -> dict[str, set[str]]:
    """The names of all components by kind."""
    return {kind: {*registry} for kind, registry in filled_registries().items()}


def blocks_named(name: str, registry: Registry, values: Any) -> list[Block]:
    """The blocks of a component in nested values of a config."""
    found: list[Block] = []
    if isinstance(values, dict):
        if values.get("name") == name and name in registry:
            found.append(Block(values))
        for value in values.values():
            found += blocks_named(name, registry, value)
    elif isinstance(values, list):
        for value in values:
            found += blocks_named(name, registry, value)
    return found


def around_of(config: Config | None, num_classes: int | None = None) -> Surroundings:
    """The parts of a config's model, as far as it has them; those of a small model elsewhere.

    Args:
        config: Of the user.
        num_classes: K; None: that of the config's training data, if they can be read.
    """
    small = Surroundings()
    small = replace(small, num_classes=num_classes or _classes_of(config) or small.num_classes)
    if config is None or not all(key in config.model for key in ("backbone", "neck")):
        return small
    maps = BACKBONE_REGISTRY.build(config.model.backbone).output_shape()
    levels = NECK_REGISTRY.build(config.model.neck, input_shape=maps).output_shape()
    anchors = config.model.get("anchor_generator")
    num_anchors = small.num_anchors
    if anchors is not None:
        strides = [spec.stride for spec in levels.values()]
        num_anchors = ANCHOR_GENERATOR_REGISTRY.build(anchors, strides=strides).num_anchors
    return replace(
        small,
        maps=maps,
        levels=levels,
        num_anchors=num_anchors,
        box_coder=config.model.get("box_coder") or small.box_coder,
    )


def _classes_of(config: Config | None) -> int | None:
    if config is None:
        return None
    if config.data.num_classes is not None:
        return config.data.num_classes
    try:
        return len(build_datasets(config.data.train, "data.train")[0].class_names)
    except UserError:
        return None  # the data are not here, and a component may be checked all the same
